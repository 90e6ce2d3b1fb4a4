"""Operators' commands: the topic that keeps them, and the part of a worker that follows them."""

from .commands import PauseResult, Pauses
from .record_format import AbortOutcome, Command, CommandKind

__all__ = ["AbortOutcome", "Command", "CommandKind", "PauseResult", "Pauses"]
