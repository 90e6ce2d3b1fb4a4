"""Operators' commands: the topic that keeps them, and the part of a worker that follows them."""

from .commands import PauseResult
from .record_format import Command, CommandKind

__all__ = ["Command", "CommandKind", "PauseResult"]
