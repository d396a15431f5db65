"""Checks for what texture cannot tell: how many parts there are, which are missing, and where they lie."""
