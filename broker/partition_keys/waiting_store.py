"""Reads a queue's lanes topic."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping

from ..errors import KafkaUnavailable
from ..kafka.clients import Clients
from ..kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    UnknownTopicOrPartitionError,
)
from ..kafka.leader_epochs import EpochEnds, epoch_of_position
from ..kafka.metadata import partitions_now
from ..kafka.protocol import ConsumerClient
from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.truncation import is_cut
from ..process.forks import leave_to_parent, reset_on_fork
from ..produce.publisher import Publisher
from .acknowledged_ends import AcknowledgedEnds
from .lanes import SequenceNumber
from .record_format import Place, Waiting, mark, read
from .store_repair import SCHEMA, Comparison, unpack

logger = logging.getLogger(__name__)

#: How long Kafka may send nothing of what it says it has.
SILENCE_TIMEOUT_S = 5.0
#: How long it may answer with less than it has acknowledged. The consumer's thread waits for it.
STALE_TIMEOUT_S = 1.0
REQUEST_TIMEOUT_MS = 5_000

_PLACE = "partition = ? AND first_offset = ? AND timestamp = ?"


class StaleRead(KafkaTimeoutError):
    """Kafka answers with less of a lanes topic than it has acknowledged."""


class Recreated(UnknownTopicOrPartitionError):
    """A lanes topic that was read is not there any more; another one has its name."""


class WaitingStore:
    """What waits for a group in a lanes topic, in a temporary file of SQLite's. Use it from one thread at a
    time.

    Nothing is asked of Kafka before the first question, and a topic that does not exist holds nothing.

    Parameters:
      publisher: Writes the marks by which the true end of the log is found.
      written: What is never taken for absent.
      mend: Called when the topic has lost its tail, until it does not raise: with what waited and is not in
        the topic any more, and with what did not wait any more and is in it again.

    Attributes:
      ended: What has ceased to wait, and the key of each. Whoever has dealt with one takes it out; one that
        waits again is taken out by :meth:`catch_up`.

    Raises (its methods that ask Kafka): KafkaError and KafkaUnavailable when it does not answer, or answers
      with less than it has acknowledged.
    """

    def __init__(
        self,
        clients: Clients,
        topic: str,
        group: str,
        *,
        publisher: Publisher,
        written: AcknowledgedEnds,
        mend: Callable[[list[Waiting], list[Waiting]], None] = lambda lost, back: None,
    ) -> None:
        self._clients = clients
        self._topic = topic
        self._group = group
        self._publisher = publisher
        self._written = written
        self.ended: dict[Place, bytes] = {}
        self._kafka: ConsumerClient | None = None
        self._partitions: list[TopicPartition] = []
        self._is_new = False  # connected, and nothing was read since
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute(SCHEMA)
        self._comparison = Comparison(self._db, group)
        self._mend = mend
        self._to_mend: tuple[list[Waiting], list[Waiting]] | None = None
        self._read_to: dict[TopicPartition, tuple[int, int]] = {}  # the position, and the leader epoch there
        self._reached: dict[int, int] = {}  # the positions, also those of earlier connections
        self._topic_id: object = None
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Leave the file to the parent. Whoever has one of these in the child makes another."""
        leave_to_parent(self._db)

    def catch_up(self, *, ask_for_partitions: bool = False) -> None:
        """Read up to what is the end now, and at least what this process was acknowledged.

        Parameters:
          ask_for_partitions: Whether Kafka is asked for partitions that were added. They are noticed without
            that, after a while, and when this process writes there.
        """
        try:
            self._read({}, ask_for_partitions=ask_for_partitions)
        except StaleRead:
            # It may also be another log by now, recreated or cut off; then nobody would ever get there.
            known = self._known()
            if not self._is_another_log(known, self._mark()):
                raise
            self._read({})

    def catch_up_with_all(self) -> None:
        """Read everything that anybody, in whichever process, was acknowledged before this call.

        It costs a record in each partition.
        """
        known = self._known()
        marks = self._mark()
        self._is_another_log(known, marks)
        self._read(marks)

    def _read(self, marks: Mapping[int, int], *, ask_for_partitions: bool = False) -> None:
        try:
            if not self._is_connected():
                return
            kafka = self._kafka
            assert kafka is not None
            if kafka.topic_id(self._topic) != self._topic_id:
                raise Recreated(f"The topic {self._topic!r} was recreated; it is read again")
            least = _highest(self._known(), marks)
            self._follow_partitions(kafka, least, ask=ask_for_partitions)
            epochs = {partition: epoch for partition, (_, epoch) in self._read_to.items()}
            asked = EpochEnds(kafka, epochs, timeout_ms=REQUEST_TIMEOUT_MS)
            ends = kafka.end_offsets(self._partitions, timeout_ms=REQUEST_TIMEOUT_MS)
            self._look_for_lost_tail(kafka, asked)
            if self._is_new:
                self._db.execute("DELETE FROM waiting")  # it is read from the beginning
                self._is_new = False
            self._read_up_to(kafka, ends, least)
            self._note_where(kafka)
            if self._to_mend is not None:
                self._mend(*self._to_mend)
                self._to_mend = None
                self._read({})
        except StaleRead:
            raise
        except KafkaError as e:
            if isinstance(e, LogTruncationError | Recreated):
                self._comparison.begin()
            self._disconnect()
            raise

    def _read_up_to(
        self, kafka: ConsumerClient, ends: Mapping[TopicPartition, int], least: Mapping[int, int]
    ) -> None:
        heard_s = time.monotonic()
        while behind := [p for p, end in ends.items() if self._is_behind(kafka, p, end, least)]:
            batches = kafka.poll(timeout_ms=100)
            self._db.execute("BEGIN")
            for records in batches.values():
                for record in records:
                    self._apply(record)
            self._db.execute("COMMIT")
            silent_s = time.monotonic() - heard_s
            if batches:
                heard_s = time.monotonic()
            elif silent_s > STALE_TIMEOUT_S and not any(
                self._is_behind(kafka, partition, ends[partition], {}) for partition in behind
            ):
                kafka.request_metadata()  # another one leads, perhaps
                raise StaleRead(
                    f"Kafka shows less of {sorted(behind)} than it has acknowledged: at least "
                    f"{ {p.partition: least[p.partition] for p in behind} } record(s)"
                )
            elif silent_s > SILENCE_TIMEOUT_S:
                raise KafkaTimeoutError(f"Kafka sends nothing more of the topic {self._topic!r}")

    def waiting(self, partition: int) -> list[tuple[bytes, SequenceNumber, int, int]]:
        """What waits of a partition of the queue, as (key, order number, due time, partition that keeps it),
        in order.
        """
        found = self._db.execute(
            "SELECT key, first_offset, timestamp, due_ms, kept_in FROM waiting WHERE partition = ?"
            " ORDER BY first_offset, timestamp",
            (partition,),
        )
        return [
            (key, SequenceNumber(offset, timestamp), due, kept_in)
            for key, offset, timestamp, due, kept_in in found
        ]

    def get(self, place: Place) -> Waiting | None:
        """The message that waits at a place; None when it does not any more."""
        found = self._db.execute(
            f"SELECT key, due_ms, value, headers, kept_in FROM waiting WHERE {_PLACE}",
            (place.partition, *place.sequence),
        ).fetchone()
        if found is None:
            return None
        key, due_ms, value, packed, kept_in = found
        return Waiting(place, key, due_ms, value, unpack(packed), kept_in)

    def places(self) -> list[tuple[Place, int]]:
        """Where everything that waits first stood, and the partition that keeps it."""
        found = self._db.execute("SELECT partition, first_offset, timestamp, kept_in FROM waiting")
        return [
            (Place(self._group, partition, SequenceNumber(offset, timestamp)), kept_in)
            for partition, offset, timestamp, kept_in in found
        ]

    def count(self) -> int:
        counted: int = self._db.execute("SELECT count(*) FROM waiting").fetchone()[0]
        return counted

    def close(self) -> None:
        self._disconnect()
        self._db.close()

    def _apply(self, record: ConsumedRecord) -> None:
        try:
            place, waiting = read(record.key, record.value, record.headers)
        except (KeyError, ValueError) as e:
            logger.error("%s-%d at %d is left alone: %r", record.topic, record.partition, record.offset, e)
            return
        if place.group != self._group:
            return
        if waiting is None:
            self._comparison.note_done(place)
            found = self._db.execute(
                f"DELETE FROM waiting WHERE {_PLACE} RETURNING key", (place.partition, *place.sequence)
            ).fetchone()
            if found is not None:
                self.ended[place] = found[0]
            return
        self.ended.pop(place, None)
        packed = json.dumps([(name, (text or b"").decode("latin-1")) for name, text in waiting.headers])
        self._db.execute(
            "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                place.partition,
                *place.sequence,
                waiting.key,
                waiting.due_ms,
                waiting.value,
                packed,
                record.partition,
            ),
        )

    # Where the log ends

    def _known(self) -> dict[int, int]:
        """Where the log ended at least, as far as this process was told."""
        return _highest(self._written.ends(self._topic), self._reached)

    def _mark(self) -> dict[int, int]:
        """Write a mark into each partition, which only its true leader takes; return the offset after it."""
        ends: dict[int, int] = {}

        def note(partition: int, offset: int | None) -> None:
            if offset is not None:
                ends[partition] = offset + 1

        try:
            if not self._is_connected():
                return {}
            assert self._kafka is not None
            numbers = partitions_now(self._kafka, self._topic, timeout_ms=REQUEST_TIMEOUT_MS)
        except KafkaError:
            self._disconnect()
            raise
        numbers |= {partition.partition for partition in self._partitions}
        marks = [mark(self._topic, self._group, number, watch=note) for number in sorted(numbers)]
        for failure in self._publisher.publish(marks).values():
            raise KafkaUnavailable(
                f"It cannot be told where the topic {self._topic!r} ends: {failure!r}"
            ) from failure
        return ends

    def _is_another_log(self, known: Mapping[int, int], marks: Mapping[int, int]) -> bool:
        """Whether the log has become another one; then it is read from its beginning the next time.

        Parameters:
          known: Where it ended at least, before the marks were written.
        """
        lost = {
            partition: known[partition] for partition, end in marks.items() if end <= known.get(partition, 0)
        }
        if not lost:
            return False
        logger.error(
            "The topic %r was recreated or has lost its tail: its partitions had at least %s records and "
            "have %s now. It is read again.",
            self._topic, lost, {partition: marks[partition] for partition in lost},
        )  # fmt: skip
        self._comparison.begin()
        self._written.restart(self._topic, marks)
        self._reached.clear()
        self._disconnect()
        return True

    # The connection

    def _is_connected(self) -> bool:
        """Whether there is a topic to read; connects to it."""
        if self._partitions:
            return True
        if self._kafka is None:
            self._kafka = self._clients.consumer(auto_offset_reset="none", fetch_max_wait_ms=10)
        numbers = self._kafka.partitions_for_topic(self._topic)
        if not numbers:
            return False
        topic_id = self._kafka.topic_id(self._topic)
        if topic_id != self._topic_id:
            self._topic_id = topic_id
            self._reached.clear()
        self._add(self._kafka, numbers)
        self._is_new = True
        return True

    def _follow_partitions(self, kafka: ConsumerClient, least: Mapping[int, int], *, ask: bool) -> None:
        """Read partitions, too, that were added."""
        known = {partition.partition for partition in self._partitions}
        numbers = kafka.partitions_for_topic(self._topic)
        if ask or not least.keys() <= numbers | known:
            numbers = partitions_now(kafka, self._topic, timeout_ms=REQUEST_TIMEOUT_MS)
        if added := numbers - known:
            self._add(kafka, added)

    def _add(self, kafka: ConsumerClient, numbers: set[int]) -> None:
        added = [TopicPartition(self._topic, number) for number in sorted(numbers)]
        kafka.assign(self._partitions + added)
        kafka.seek_to_beginning(*added)
        self._partitions = self._partitions + added

    def _look_for_lost_tail(self, kafka: ConsumerClient, asked: EpochEnds) -> None:
        """Read from the beginning again what has other records now than it had when it was read."""
        if any(is_cut(*self._read_to[partition], answer) for partition, answer in asked.answers().items()):
            logger.error(
                "The topic %r lost its tail, as it does when a replica without it is elected (an unclean "
                "election); it is read again.", self._topic,
            )  # fmt: skip
            self._comparison.begin()
            kafka.seek_to_beginning(*self._partitions)

    def _note_where(self, kafka: ConsumerClient) -> None:
        """Note up to where everything was read."""
        for partition in self._partitions:
            position = kafka.position(partition, timeout_ms=REQUEST_TIMEOUT_MS)
            if position is not None:
                self._read_to[partition] = position, epoch_of_position(kafka, partition)
                self._reached[partition.partition] = position
        if self._comparison.active:
            self._to_mend = self._comparison.finish()

    def _disconnect(self) -> None:
        kafka, self._kafka, self._partitions = self._kafka, None, []
        if kafka is not None:
            kafka.close(autocommit=False)

    def _is_behind(
        self, kafka: ConsumerClient, partition: TopicPartition, end: int, least: Mapping[int, int]
    ) -> bool:
        # The end that is asked for is too low on the embedded broker: it is in the last batch, not after it.
        position = kafka.position(partition, timeout_ms=REQUEST_TIMEOUT_MS)
        wanted = max(end, kafka.highwater(partition) or 0, least.get(partition.partition, 0))
        return position is None or position < wanted


def _highest(*ends: Mapping[int, int]) -> dict[int, int]:
    """The highest of several offsets, by partition."""
    highest: dict[int, int] = {}
    for found in ends:
        for partition, end in found.items():
            highest[partition] = max(highest.get(partition, 0), end)
    return highest
