"""Servers from wheels or Maven for the tests, and `python -m dev`, which runs the whole service."""
