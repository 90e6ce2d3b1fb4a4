"""The messages of a worker to the reaper of its command.

A message is a line with a Python literal: its values may be tuples and bytes, as settings of clients are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from ..kafka.types import Membership

#: The longest line. A reaper closes a connection that exceeds it.
MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Introduction:
    """The first message of a worker.

    Attributes:
      worker_id: The key of its death note.
      bootstrap_servers, client_options: The settings with which a client reaches its cluster. They may be
        secret.
      notes_topic: The topic of death notes.
      session_timeout_ms: The time after which Kafka removes its members itself.
    """

    worker_id: str
    bootstrap_servers: list[str]
    client_options: dict[str, Any]
    notes_topic: str
    session_timeout_ms: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The consumer number ``slot`` of the worker has a member id in a group, instead of an earlier one."""

    slot: int
    group: str
    member_id: str
    group_instance_id: str | None

    @property
    def membership(self) -> Membership:
        return Membership(self.group, self.member_id, self.group_instance_id)


@dataclass(frozen=True, slots=True)
class Left:
    """The consumer number ``slot`` has left its group."""

    slot: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The worker has stopped in good order. Its end needs no attention."""


@dataclass(frozen=True, slots=True)
class Limited:
    """A task with a hard time limit has begun.

    Attributes:
      number: Distinguishes the runs of the worker.
      until_s: The time at which the worker is to be killed, by the monotonic clock of the machine, which both
        processes read.
      limit_ms: The limit.
      message_id, actor_name: The task's message.
      group_id: The ``group_id`` of the worker's consumer groups.
      topic, partition, offset: The task's record.
      crashes: Its crash count if the worker is killed for it.
      partitions: The partitions of all queues that the worker has.
    """

    number: int
    until_s: float
    limit_ms: int
    message_id: str
    actor_name: str
    group_id: str
    topic: str
    partition: int
    offset: int
    crashes: int
    partitions: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Unlimited:
    """The run with that number has ended."""

    number: int


WorkerMessage = Introduction | Joined | Left | Goodbye | Limited | Unlimited
_KINDS: dict[str, type[WorkerMessage]] = {kind.__name__: kind for kind in get_args(WorkerMessage)}


def excess_of(limited: Limited) -> str:
    """What a task has done, for a text."""
    return (
        f"the task {limited.message_id} of {limited.actor_name} ran for longer than its hard time limit of "
        f"{limited.limit_ms} ms"
    )


class WireError(ValueError):
    """A line is not a message."""


def encode(message: WorkerMessage) -> bytes:
    return f"{(type(message).__name__, asdict(message))!r}\n".encode()


def decode(line: bytes) -> WorkerMessage:
    """Decode a line.

    Raises:
      WireError: When it is not a message.
    """
    try:
        kind, fields = ast.literal_eval(line.decode())
        return _KINDS[kind](**fields)
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as e:
        # Without the line, which may have secrets.
        raise WireError(f"a line of {len(line)} bytes is not a message: {type(e).__name__}") from None


def not_transferable(options: Mapping[str, Any]) -> list[str]:
    """The names of the options that no other process can be given, such as objects and functions."""
    return [name for name, value in options.items() if not _is_literal(value)]


def _is_literal(value: object) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


class LineBuffer:
    """Assembles lines from the pieces in which they arrive."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete with ``data``.

        Raises:
          WireError: When a line is longer than MAX_LINE_BYTES.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
        if len(self._rest) > MAX_LINE_BYTES:
            raise WireError(f"a line has more than {MAX_LINE_BYTES} bytes")
