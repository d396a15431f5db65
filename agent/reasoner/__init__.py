"""Reasoners by name."""
