"""Trains model.pkl with its manifest model.json: ``python -m training``."""
