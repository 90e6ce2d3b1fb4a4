"""Makes model.pkl and its manifest model.json: ``python -m training``."""
