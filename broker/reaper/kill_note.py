"""The record that names the task for which a reaper kills a worker, in the topic of the workers' reports.

It is in Kafka before the worker is killed. So whoever takes the partitions of the killed worker over can read
which record was the cause, and that the others were not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..kafka.types import TopicPartition
from .note_format import decode_note

#: The field ``kind``: the topic has reports and death notes, too.
KIND = "kill"
VERSION = 1


@dataclass(frozen=True, slots=True)
class KillNote:
    """A worker is killed since one of its tasks has exceeded its hard time limit.

    Attributes:
      worker_id: The id of the worker.
      at_ms: When, in milliseconds since 1970, by the reaper's clock.
      group_id: The ``group_id`` of the worker's consumer groups.
      culprit: The partition of the queue that has the task's record.
      offset: The offset of that record.
      crashes: Its crash count with this kill.
      partitions: The partitions of all queues that the worker had when the task began.
      message_id, actor_name: The task's message.
      limit_ms: The limit.
    """

    worker_id: str
    at_ms: int
    group_id: str
    culprit: TopicPartition
    offset: int
    crashes: int
    partitions: frozenset[TopicPartition]
    message_id: str
    actor_name: str
    limit_ms: int

    @property
    def key(self) -> bytes:
        """The key of its record. Compaction keeps it beside the last report of the worker."""
        return f"{self.worker_id}/kill".encode()

    def encode(self) -> bytes:
        """The value of its record: JSON in UTF-8."""
        return json.dumps(
            {
                "v": VERSION,
                "kind": KIND,
                "worker": self.worker_id,
                "at_ms": self.at_ms,
                "group_id": self.group_id,
                "culprit": list(self.culprit),
                "offset": self.offset,
                "crashes": self.crashes,
                "partitions": sorted(map(list, self.partitions)),
                "message_id": self.message_id,
                "actor": self.actor_name,
                "limit_ms": self.limit_ms,
            }
        ).encode()

    @classmethod
    def decode(cls, value: bytes | None) -> KillNote | None:
        """Decode a record's value; None when it is no such note of a version that this code knows."""
        return decode_note(value, KIND, VERSION, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> KillNote:
        return cls(
            worker_id=str(fields["worker"]),
            at_ms=int(fields["at_ms"]),
            group_id=str(fields["group_id"]),
            culprit=_partition(fields["culprit"]),
            offset=int(fields["offset"]),
            crashes=int(fields["crashes"]),
            partitions=frozenset(map(_partition, fields["partitions"])),
            message_id=str(fields["message_id"]),
            actor_name=str(fields["actor"]),
            limit_ms=int(fields["limit_ms"]),
        )


def culprits_of(
    notes: Iterable[KillNote], partition: TopicPartition, crashes_of: Callable[[int], int | None]
) -> dict[int, int] | None:
    """The records of a partition for which its last owner was killed.

    Parameters:
      crashes_of: The crash count of an offset, as that owner has committed it; None for a complete one. A
        note that a successor has counted already has no higher count.

    Returns:
      Their crash counts by offset; empty when the owner was killed for a record of another partition; None
      when its end has another cause, as far as the notes tell.
    """
    found: dict[int, int] = {}
    is_bystander = False
    for note in notes:
        if note.culprit == partition:
            committed = crashes_of(note.offset)
            if committed is not None and note.crashes > max(committed, found.get(note.offset, 0)):
                found[note.offset] = note.crashes
        elif partition in note.partitions:
            is_bystander = True
    return found if found or is_bystander else None


def _partition(listed: list[Any]) -> TopicPartition:
    topic, number = listed
    return TopicPartition(str(topic), int(number))
