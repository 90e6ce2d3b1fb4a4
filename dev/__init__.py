"""Servers out of wheels or Maven for the tests, and `python -m dev`, the whole service at once."""
