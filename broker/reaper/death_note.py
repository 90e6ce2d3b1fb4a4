"""The record that tells other workers of a death, in the topic of the workers' reports."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..kafka.types import Membership
from .note_format import decode_note

#: The field ``kind``: the topic has reports and goodbyes, too, most of them compressed.
KIND = "death"
VERSION = 1


@dataclass(frozen=True, slots=True)
class DeathNote:
    """A worker process has ended without a goodbye.

    Attributes:
      worker_id: The id of the worker.
      at_ms: When the reaper noticed the death, in milliseconds since 1970.
      signal: The number of the signal that ended it; None when none did, or when it is unknown.
      exit_code: Its exit code; None when a signal ended it, or when it is unknown.
      removed: The memberships that the reaper has ended. The groups rebalance.
      remaining: The memberships that a successor ends once it joins: the group has no other members, and an
        empty group would make the successor wait for ``group.initial.rebalance.delay.ms``.
      expires_ms: The time after which Kafka has ended the remaining memberships itself.
      culprit: The task for which the reaper has killed it, in one sentence; empty without one.
      command: The host and the process id of its command. The other workers of the command are no successors:
        Dramatiq stops them.
    """

    worker_id: str
    at_ms: int
    signal: int | None = None
    exit_code: int | None = None
    removed: frozenset[Membership] = frozenset()
    remaining: frozenset[Membership] = frozenset()
    expires_ms: int = 0
    command: str = ""
    culprit: str = ""

    @property
    def key(self) -> bytes:
        """The key of its record. It is not the worker's, so that compaction keeps the last report, too."""
        return f"{self.worker_id}/death".encode()

    @property
    def groups(self) -> set[str]:
        """The consumer groups that the worker was a member of."""
        return {membership.group for membership in self.removed | self.remaining}

    def encode(self) -> bytes:
        """The value of its record: JSON in UTF-8."""
        return json.dumps(
            {
                "v": VERSION,
                "kind": KIND,
                "worker": self.worker_id,
                "at_ms": self.at_ms,
                "signal": self.signal,
                "exit_code": self.exit_code,
                "removed": _listed(self.removed),
                "remaining": _listed(self.remaining),
                "expires_ms": self.expires_ms,
                "command": self.command,
                "culprit": self.culprit,
            }
        ).encode()

    @classmethod
    def decode(cls, value: bytes | None) -> DeathNote | None:
        """Decode a record's value; None when it is no death note of a version that this code knows."""
        return decode_note(value, KIND, VERSION, cls.from_fields)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> DeathNote:
        """From the fields of a record's value.

        Raises:
          KeyError, TypeError, ValueError: When a field is missing or has another type.
        """
        return cls(
            worker_id=str(fields["worker"]),
            at_ms=int(fields["at_ms"]),
            signal=_maybe_int(fields.get("signal")),
            exit_code=_maybe_int(fields.get("exit_code")),
            removed=_memberships(fields.get("removed", [])),
            remaining=_memberships(fields.get("remaining", [])),
            expires_ms=int(fields.get("expires_ms", 0)),
            command=str(fields.get("command", "")),
            culprit=str(fields.get("culprit", "")),
        )


def command_name(master_pid: int) -> str:
    """The name of a command in death notes: the host and the process id."""
    return f"{socket.gethostname()}:{master_pid}"


def _maybe_int(value: Any) -> int | None:
    return None if value is None else int(value)


def _listed(memberships: frozenset[Membership]) -> list[list[str | None]]:
    return [list(membership) for membership in sorted(memberships, key=lambda m: (m.group, m.member_id))]


def _memberships(listed: list[list[str]]) -> frozenset[Membership]:
    return frozenset(
        Membership(str(group), str(member_id), None if instance is None else str(instance))
        for group, member_id, instance in listed
    )
