"""Finds the messages of a replay: reads the queue's log, and everything that says what is not complete."""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from dramatiq.message import Message

from ..admin.backlog import Backlog
from ..admin.backlogs import PartitionBacklog
from ..admin.lane_backlog import LaneBacklog
from ..consume.decoding import read_message
from ..dead_letters import DeadLetterQueue
from ..delays import Delays
from ..errors import InvalidMessage
from ..kafka.clients import Clients
from ..kafka.rights import Rights, reading
from ..kafka.topics import Topics
from ..kafka.types import ConsumedRecord
from ..partition_keys.record_format import read_requeue_headers
from .queue_log import QueueLog, ReadRecord
from .record_format import Replay, identity_of, replay_id_of
from .request import ReplayResult
from .selection import ReplaySelection, SeenRecord

REQUEST_TIMEOUT_MS = 10_000
#: The reason for which a record is skipped; see ``selection`` for those of messages.
NOT_A_MESSAGE = "the record is not a message of this queue"


class LogSearch:
    """Reads the messages of one queue into a selection.

    Raises (every method): KafkaUnavailable when Kafka does not answer, and NotAuthorized when this client
    lacks a right.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        delays: Delays,
        lanes: LaneBacklog,
        dead_letters: DeadLetterQueue,
        *,
        group_id: str,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._delays = delays
        self._lanes = lanes
        self._dead_letters = dead_letters
        self._group_id = group_id

    def run(
        self, replay: Replay, interrupted: Sequence[Replay], selection: ReplaySelection, result: ReplayResult
    ) -> dict[int, int]:
        """Add the records of the log to ``selection``, and note in ``result`` where the log starts.

        Returns:
          The ends up to which the log was read, by partition.
        """
        queue_name = replay.queue_name
        # Before the ends of the log are asked for: a message that is complete by now, and not any more then,
        # has a record above these commits and below those ends.
        backlogs = self._backlogs(queue_name)
        self._add_unfinished(queue_name, selection)
        with QueueLog(self._clients, self._topics.queue(queue_name)) as log:
            starts = log.starts_of(replay.since_ms)
            shortened = {p for p in log.ends if 0 < log.beginnings[p] == starts[p]}
            for number, end in log.ends.items():
                needed = _first_needed(number, backlogs.get(number), interrupted, end)
                starts[number] = min(starts[number], needed)
            for each in log.records(starts):
                if each.record.partition in shortened:
                    shortened.discard(each.record.partition)
                    _note_log_start(result, each.record.timestamp, replay.until_ms)
                seen = _seen(each, queue_name, backlogs.get(each.record.partition))
                if seen is not None:
                    selection.add(seen)
                elif selection.is_in_range(each.record.timestamp):
                    selection.skipped[NOT_A_MESSAGE] += 1
            if shortened:  # partitions without a record
                _note_log_start(result, replay.at_ms, replay.until_ms)
            return log.ends

    def _add_unfinished(self, queue_name: str, selection: ReplaySelection) -> None:
        """Add the messages that wait in other topics, and the dead letters."""
        self._check_lanes(queue_name)
        selection.unfinished.update(identity_of(*waiting) for waiting in self._delays.waiting(queue_name))
        for entry in self._lanes.waiting(queue_name):
            if (waiting_id := _id_of(entry.value, queue_name)) is not None:
                selection.unfinished.add(identity_of(waiting_id, entry.headers))
        for dead in self._dead_letters.read(queue_name):
            if dead.message is not None:
                selection.dead.add(identity_of(dead.message.message_id, dead.headers))

    def _check_lanes(self, queue_name: str) -> None:
        """Check that a lanes topic that seems missing is not one that this client may not see."""
        lanes = self._topics.lanes(queue_name)

        def ask() -> None:
            with closing(self._clients.consumer()) as kafka:
                kafka.existing_topics([lanes], REQUEST_TIMEOUT_MS)

        self._clients.ask(ask, f"The topic {lanes!r} could not be read", rights=reading(lanes))

    def _backlogs(self, queue_name: str) -> dict[int, PartitionBacklog]:
        topic, group = self._topics.queue(queue_name), self._topics.group(self._group_id, queue_name)

        def ask() -> dict[int, PartitionBacklog]:
            with Backlog(self._clients, topic, group) as backlog:
                return {partition.partition: found for partition, found in backlog.read().items()}

        return self._clients.ask(
            ask,
            f"The commits of the queue {queue_name!r} could not be read",
            rights=Rights((topic,), group=group, on_group="DESCRIBE"),
        )


class _AnyActor(Container[str]):
    """The actors that a process need not declare to replay their messages."""

    def __contains__(self, name: object) -> bool:
        return True


_ANY_ACTOR = _AnyActor()


def message_of(record: ConsumedRecord, queue_name: str) -> Message[Any] | None:
    """The message of a record; None for a record that a worker dead-letters unread."""
    try:
        return read_message(record.value, queue_name=queue_name, actors=_ANY_ACTOR, record=record)
    except InvalidMessage:
        return None


def _id_of(value: bytes, queue_name: str) -> str | None:
    try:
        return read_message(value, queue_name=queue_name, actors=_ANY_ACTOR).message_id
    except InvalidMessage:
        return None


def _seen(each: ReadRecord, queue_name: str, backlog: PartitionBacklog | None) -> SeenRecord | None:
    record, state = each.record, None if backlog is None else backlog.state
    message = message_of(record, queue_name)
    if message is None:
        return None
    requeued = read_requeue_headers(record.headers)
    order, first_ms = (record.offset, record.timestamp) if requeued is None else requeued[0]
    return SeenRecord(
        identity_of(message.message_id, record.headers),
        message.actor_name,
        record.partition,
        record.offset,
        record.timestamp,
        max(0, record.serialized_value_size),
        is_complete=each.is_committed and state is not None and state.is_complete(record.offset),
        order=order,
        first_ms=first_ms,
        replay_id=replay_id_of(record.headers),
    )


def _first_needed(partition: int, backlog: PartitionBacklog | None, begun: Sequence[Replay], end: int) -> int:
    """The lowest offset that decides about a message of the range, whatever the range."""
    needed = end if backlog is None or backlog.state is None else min(end, backlog.state.next_offset)
    for replay in begun:
        # A replay that ends behind the log has sent its messages to a topic that was recreated since.
        its_end = replay.ends.get(partition, 0)
        needed = min(needed, its_end if its_end <= end else 0)
    return needed


def _note_log_start(result: ReplayResult, timestamp_ms: int, until_ms: int | None) -> None:
    at = _time(timestamp_ms if until_ms is None else min(timestamp_ms, until_ms))
    result.log_starts = at if result.log_starts is None else max(at, result.log_starts)


def _time(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)
