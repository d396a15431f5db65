"""Benchmarks behind the command line's bench."""
