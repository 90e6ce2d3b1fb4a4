"""The record that tells other workers of a death."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..kafka.types import Membership

#: The field ``kind``: the topic has reports and goodbyes, too, most of them compressed.
KIND = "death"
VERSION = 1
_MARK = f'"{KIND}"'.encode()


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a process.

    Attributes:
      status: Its exit status; None when a signal ended it, or the status is not known.
      signal: The number of the signal that ended it; None without one, or when it is not known.
    """

    status: int | None = None
    signal: int | None = None

    @classmethod
    def from_wait_status(cls, wait_status: int) -> Exit:
        """From the number that ``waitpid`` gives."""
        signal = wait_status & 0x7F
        return cls(signal=signal) if signal else cls(status=wait_status >> 8 & 0xFF)

    def __str__(self) -> str:
        if self.signal is not None:
            return f"signal {self.signal}"
        return "an unknown exit status" if self.status is None else f"exit status {self.status}"


@dataclass(frozen=True, slots=True)
class DeathNote:
    """A worker process has ended without a goodbye.

    Attributes:
      worker_id: The key of the record, which replaces the last report of the worker.
      died_ms: When the reaper noticed the death, in milliseconds since 1970.
      exit: How the process ended.
      removed: The memberships that the reaper has ended. The groups rebalance.
      remaining: The memberships that a successor ends once it joins: the group has no other members, and an
        empty group would make the successor wait for ``group.initial.rebalance.delay.ms``.
      expires_ms: The time after which Kafka has ended the remaining memberships itself.
    """

    worker_id: str
    died_ms: int
    exit: Exit = field(default_factory=Exit)
    removed: frozenset[Membership] = frozenset()
    remaining: frozenset[Membership] = frozenset()
    expires_ms: int = 0

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
                "at_ms": self.died_ms,
                "signal": self.exit.signal,
                "exit_code": self.exit.status,
                "removed": _listed(self.removed),
                "remaining": _listed(self.remaining),
                "expires_ms": self.expires_ms,
            }
        ).encode()

    @classmethod
    def decode(cls, value: bytes | None) -> DeathNote | None:
        """Decode a record's value; None when it is no death note of a version that this code knows."""
        if value is None or not value.startswith(b"{") or _MARK not in value:
            return None
        try:
            fields = json.loads(value)
            if fields.get("kind") != KIND or fields.get("v") != VERSION:
                return None
            return _decoded(fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _decoded(fields: Mapping[str, Any]) -> DeathNote:
    return DeathNote(
        worker_id=str(fields["worker"]),
        died_ms=int(fields["at_ms"]),
        exit=Exit(fields["exit_code"], fields["signal"]),
        removed=_memberships(fields["removed"]),
        remaining=_memberships(fields["remaining"]),
        expires_ms=int(fields["expires_ms"]),
    )


def _listed(memberships: frozenset[Membership]) -> list[list[str | None]]:
    return [list(membership) for membership in sorted(memberships, key=lambda m: (m.group, m.member_id))]


def _memberships(listed: list[list[str]]) -> frozenset[Membership]:
    return frozenset(Membership(*membership) for membership in listed)
