"""The moderation service beside the design that is written by hand: ``python -m bench.moderation``."""
