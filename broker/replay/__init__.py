"""Runs the messages again that a queue's log still has."""

from .record_format import Replay, ReplayState
from .replayer import Replayer
from .request import ReplayResult

__all__ = ["Replay", "ReplayResult", "ReplayState", "Replayer"]
