"""Tests wait for a condition with a deadline; this is the one way they do it."""

from dev.waiting import wait_until

__all__ = ["wait_until"]
