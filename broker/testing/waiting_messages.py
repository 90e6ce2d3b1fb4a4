"""Reads in a cluster in memory which messages wait: in a queue, in a lane, or for their time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dramatiq.message import Message

from ..delays.view import DelayedMessage
from ..offsets.commit_metadata import decode
from ..partition_keys.record_format import Place, Waiting, read
from ..process import clock
from .memory.cluster import MemoryCluster

if TYPE_CHECKING:
    from ..broker import KafkaBroker


class WaitingMessages:
    """The messages of one queue that wait."""

    def __init__(self, broker: KafkaBroker, cluster: MemoryCluster, queue_name: str) -> None:
        self._broker = broker
        self._cluster = cluster
        self._queue_name = queue_name

    def pending(self) -> list[Message[Any]]:
        """The messages that are due: in the queue, behind others of their key, or not forwarded yet."""
        encoded = [
            *self._in_queue(),
            *(waiting.value for waiting in self._in_lanes() if not _is_to_come(waiting.due_ms)),
            *(message.encoded for message in self._delays() if not _is_to_come(_ms(message.due))),
        ]
        messages = [Message.decode(value) for value in encoded]
        # A message that has waited in its lane may be in both topics for a moment.
        return list({message.message_id: message for message in messages}.values())

    def delayed(self) -> list[DelayedMessage]:
        """The messages whose time has not come, retries included, by due time."""
        of_keys = [
            DelayedMessage(
                Message.decode(waiting.value).message_id,
                self._queue_name,
                datetime.fromtimestamp(waiting.due_ms / 1000, UTC),
                waiting.value,
            )
            for waiting in self._in_lanes()
        ]
        found = [message for message in [*self._delays(), *of_keys] if _is_to_come(_ms(message.due))]
        return sorted(found, key=lambda message: message.due)

    def _in_queue(self) -> Iterator[bytes]:
        """The records of the queue's topic that no commit says are done."""
        parts = self._broker.parts
        topic = self._cluster.topics.get(parts.topics.queue(self._queue_name))
        if topic is None:
            return
        offsets = self._cluster.group(parts.group_of(self._queue_name)).offsets
        for partition in topic.partitions:
            commit = offsets.get(partition)
            state = None if commit is None else decode(commit.offset, commit.metadata)
            for record in self._cluster.log(partition).records:
                is_done = state is not None and state.is_complete(record.offset)
                if not is_done and record.value is not None:
                    yield record.value

    def _in_lanes(self) -> list[Waiting]:
        """The messages that wait for earlier ones of their key, or for the retry of a key in order."""
        parts = self._broker.parts
        topic = self._cluster.topics.get(parts.topics.lanes(self._queue_name))
        if topic is None:
            return []
        latest: dict[Place, Waiting | None] = {}
        for partition in topic.partitions:
            for record in self._cluster.log(partition).records:
                place, entry = read(record.key, record.value, record.headers)
                if place.group == parts.settings.group_id:
                    latest[place] = entry
        waiting = [entry for entry in latest.values() if entry is not None]
        return sorted(waiting, key=lambda entry: (entry.place.partition, entry.place.sequence))

    def _delays(self) -> list[DelayedMessage]:
        if self._broker.parts.topics.delayed not in self._cluster.topics:
            return []
        return self._broker.delayed(self._queue_name, limit=sys.maxsize).messages


def _is_to_come(due_ms: float) -> bool:
    return due_ms > clock.wall_ms()


def _ms(moment: datetime) -> float:
    return moment.timestamp() * 1000
