"""Reads a queue's lanes topic into a temporary table."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from ..kafka.clients import Clients
from ..kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    UnknownTopicOrPartitionError,
)
from ..kafka.leader_epochs import (
    EpochEnd,
    EpochEnds,
    EpochEndsByPartition,
)
from ..kafka.metadata import partitions_now
from ..kafka.protocol import ConsumerClient
from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.committed_lanes import LogEnd
from ..offsets.truncation import is_cut
from ..process import clock
from ..process.forks import leave_to_parent, reset_on_fork
from ..produce.publisher import Publisher, publish_all
from .acknowledged_ends import AcknowledgedEnds
from .lane import SequenceNumber
from .record_format import Place, Waiting, mark, read
from .store_repair import SCHEMA, Comparison, unpack

logger = logging.getLogger(__name__)

#: The time for which Kafka may send no record although the log has more.
SILENCE_TIMEOUT_S = 5.0
#: The time for which Kafka may show an earlier end than it has acknowledged. The consumer's thread waits.
STALE_TIMEOUT_S = 1.0
REQUEST_TIMEOUT_MS = 5_000

_PLACE = "partition = ? AND first_offset = ? AND timestamp = ?"


class StaleRead(KafkaTimeoutError):
    """Kafka shows an earlier end of a lanes topic than it has acknowledged."""


class Recreated(UnknownTopicOrPartitionError):
    """The lanes topic was deleted and recreated since it was read."""


class WaitingStore:
    """The waiting entries of one group in a lanes topic, in a temporary SQLite file.

    Use it from one thread at a time. The constructor sends no request. A topic that does not exist has no
    entries.

    Parameters:
      publisher: Writes the end marks that show the true end of the log.
      written: The acknowledged ends, which every read must reach.
      mend: Called after a truncation, and again until it does not raise: with the entries that the topic has
        lost, and with the ended entries that are in the topic again.

    Attributes:
      ended: The places of entries that have ended, with their keys. The caller removes those it has handled;
        :meth:`catch_up` removes those that wait again.
      read_again: Whether the topic was read again from its beginning, since it was recreated or truncated.
        The caller resets it.

    Raises (each method that sends requests): KafkaError and KafkaUnavailable when Kafka does not answer, or
      shows an earlier end than it has acknowledged.
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
        self._is_new = False  # connected, and no record read yet
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute(SCHEMA)
        self._comparison = Comparison(self._db, group)
        self._mend = mend
        self._to_mend: tuple[list[Waiting], list[Waiting]] | None = None
        self.read_again = False
        self._read_to: dict[TopicPartition, LogEnd] = {}
        self._leaders: dict[TopicPartition, int] = {}  # their epochs when it was last read
        self._reached: dict[int, int] = {}  # the positions, also those of earlier connections
        self._topic_id: object = None
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Leave the file to the parent. The owner of this object makes another one in the child."""
        leave_to_parent(self._db)

    def catch_up(self, *, ask_for_partitions: bool = False) -> None:
        """Read up to the current end, and at least up to the ends that were acknowledged to this process.

        Parameters:
          ask_for_partitions: Whether to ask Kafka for added partitions. Without it they are noticed within
            ``METADATA_MAX_AGE_MS``, and when this process writes there.
        """
        try:
            self._read({}, ask_for_partitions=ask_for_partitions)
        except StaleRead:
            # Or the topic was recreated or truncated; then no read would ever reach the acknowledged end.
            known = self._known()
            if not self._is_another_log(known, self._mark()):
                raise
            self._read({})

    def catch_up_with_all(self) -> None:
        """Read every record that was acknowledged to any process before this call.

        It writes an end mark into each partition.
        """
        known = self._known()
        marks = self._mark()
        self._is_another_log(known, marks)
        self._read(marks)

    def may_have_changed(self) -> bool:
        """Whether there is a reason to catch up: an election, or an unread record of this process.

        It sends no request.
        """
        kafka = self._kafka
        if kafka is None or not self._partitions:
            return bool(self._reached)  # the connection was lost after a read
        ends = self._written.ends(self._topic)
        return (
            any(end > self._reached.get(partition, 0) for partition, end in ends.items())
            or kafka.topic_id(self._topic) != self._topic_id
            or any(kafka.leader_epoch(p) != self._leaders.get(p) for p in self._partitions)
        )

    @property
    def is_there(self) -> bool:
        """Whether the topic exists."""
        return self._is_connected()

    def log_ends(self) -> dict[int, LogEnd]:
        """The ends up to which the topic was read or written, by which a later truncation is noticed."""
        ends = {p.partition: end for p, end in self._read_to.copy().items() if end.leader_epoch >= 0}
        for partition, end in self._written.log_ends(self._topic).items():
            ends[partition] = max(ends.get(partition, end), end)
        return ends

    def are_cut(self, ends: Sequence[Mapping[int, LogEnd]]) -> list[bool]:
        """Whether the topic was truncated below one of its ends, for each set of earlier ends."""
        if not self._is_connected():
            return [bool(end) for end in ends]
        assert self._kafka is not None
        there = {partition.partition: partition for partition in self._partitions}
        asked = {(p, end.leader_epoch) for said in ends for p, end in said.items() if p in there}
        answers = self._answers(self._kafka, {(there[p], epoch) for p, epoch in asked})
        return [
            any(
                p not in there
                or ((found := answers.get((there[p], epoch))) is not None and is_cut(end, epoch, found))
                for p, (end, epoch) in said.items()
            )
            for said in ends
        ]

    def _answers(
        self, kafka: ConsumerClient, asked: set[tuple[TopicPartition, int]]
    ) -> dict[tuple[TopicPartition, int], EpochEnd]:
        """The leaders' answers about leader epochs. One request asks about one epoch of each partition."""
        answers: dict[tuple[TopicPartition, int], EpochEnd] = {}
        while asked:
            epochs = dict(asked)
            found = EpochEnds(kafka, epochs, timeout_ms=REQUEST_TIMEOUT_MS).answers()
            answers.update({(partition, epochs[partition]): end for partition, end in found.items()})
            asked = asked - set(epochs.items())
        return answers

    def read_all_again(self) -> set[Place]:
        """Read the topic from its beginning again; return the places with a tombstone: done, or flushed."""
        if not self._is_connected():
            return set()
        assert self._kafka is not None
        self._comparison.begin()
        self._kafka.seek_to_beginning(*self._partitions)
        self._read({})
        return self._comparison.done

    @property
    def seen_done(self) -> set[Place]:
        """The places with a tombstone (done, or flushed) at the last repeated read of the topic."""
        return self._comparison.done

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
            leaders = {partition: kafka.leader_epoch(partition) for partition in self._partitions}
            known = {TopicPartition(self._topic, number): end for number, end in self.log_ends().items()}
            epochs = {partition: end.leader_epoch for partition, end in known.items()}
            asked = EpochEnds(kafka, epochs, timeout_ms=REQUEST_TIMEOUT_MS)
            ends = kafka.end_offsets(self._partitions, timeout_ms=REQUEST_TIMEOUT_MS)
            if self._look_for_lost_tail(kafka, known, asked.answers()):
                least = _highest(self._known(), marks)
            if self._is_new:
                self._db.execute("DELETE FROM waiting")  # it is read from the beginning
                self._is_new = False
            self._read_up_to(kafka, ends, least)
            self._note_where(kafka)
            self._leaders = leaders
            if self._to_mend is not None:
                if any(self._to_mend):
                    self._mend(*self._to_mend)
                self._to_mend = None
                self._read({})
        except StaleRead:
            raise
        except KafkaError as e:
            if isinstance(e, LogTruncationError | Recreated):
                self._compare()
            self._disconnect()
            raise

    def _read_up_to(
        self, kafka: ConsumerClient, ends: Mapping[TopicPartition, int], least: Mapping[int, int]
    ) -> None:
        heard_s = clock.monotonic_s()
        while behind := [p for p, end in ends.items() if self._is_behind(kafka, p, end, least)]:
            batches = kafka.poll(timeout_ms=100)
            self._db.execute("BEGIN")
            for records in batches.values():
                for record in records:
                    self._apply(record)
            self._db.execute("COMMIT")
            silent_s = clock.monotonic_s() - heard_s
            if batches:
                heard_s = clock.monotonic_s()
            elif silent_s > STALE_TIMEOUT_S and not any(
                self._is_behind(kafka, partition, ends[partition], {}) for partition in behind
            ):
                kafka.request_metadata()  # the leader may have changed
                raise StaleRead(
                    f"Kafka shows less of {sorted(behind)} than it has acknowledged: at least "
                    f"{ {p.partition: least[p.partition] for p in behind} } record(s)"
                )
            elif silent_s > SILENCE_TIMEOUT_S:
                raise KafkaTimeoutError(f"Kafka sends nothing more of the topic {self._topic!r}")

    def waiting(self, partition: int) -> list[tuple[bytes, SequenceNumber, int, int]]:
        """The waiting entries of a partition of the queue, in order, as (key, sequence number, due time,
        partition of the lanes topic).
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
        """The message that waits at ``place``, or None."""
        found = self._db.execute(
            f"SELECT key, due_ms, value, headers, kept_in FROM waiting WHERE {_PLACE}",
            (place.partition, *place.sequence),
        ).fetchone()
        if found is None:
            return None
        key, due_ms, value, packed, kept_in = found
        return Waiting(place, key, due_ms, value, unpack(packed), kept_in)

    def places(self) -> list[tuple[Place, int]]:
        """The places of all waiting entries, each with its partition of the lanes topic."""
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

    # The end of the log

    def _known(self) -> dict[int, int]:
        """The lowest possible ends of the partitions, as far as this process knows."""
        return _highest(self._written.ends(self._topic), self._reached)

    def _mark(self) -> dict[int, int]:
        """Write an end mark into each partition, which only the true leader accepts; return the offsets after
        them.
        """
        ends: dict[int, int] = {}

        def note(partition: int, offset: int | None, leader_epoch: int = -1) -> None:
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
        publish_all(self._publisher, marks, f"It cannot be told where the topic {self._topic!r} ends")
        return ends

    def _is_another_log(self, known: Mapping[int, int], marks: Mapping[int, int]) -> bool:
        """Whether the topic was recreated or truncated. If so, the next read begins at its beginning.

        Parameters:
          known: The lowest possible ends before the end marks were written.
          marks: The offsets after the end marks.
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
        self._compare()
        self._written.restart(self._topic, marks)
        self._reached.clear()
        self._read_to.clear()
        self._disconnect()
        return True

    # The connection

    def _is_connected(self) -> bool:
        """Connect to the topic; False when the topic does not exist."""
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
            self._read_to.clear()
        self._add(self._kafka, numbers)
        self._is_new = True
        return True

    def _follow_partitions(self, kafka: ConsumerClient, least: Mapping[int, int], *, ask: bool) -> None:
        """Read added partitions, too."""
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

    def _look_for_lost_tail(
        self,
        kafka: ConsumerClient,
        known: Mapping[TopicPartition, LogEnd],
        answers: EpochEndsByPartition,
    ) -> bool:
        """Read the topic again from its beginning when one of its partitions was truncated."""
        cut = {p: answer.end_offset for p, answer in answers.items() if is_cut(*known[p], answer)}
        if not cut:
            return False
        logger.error(
            "The topic %r lost its tail, as it does when a replica without it is elected (an unclean "
            "election); it is read again.", self._topic,
        )  # fmt: skip
        ends = self._written.ends(self._topic)
        for partition, end in cut.items():
            self._reached[partition.partition] = ends[partition.partition] = max(0, end)
            self._read_to.pop(partition, None)
        self._written.restart(self._topic, ends)
        self._compare()
        kafka.seek_to_beginning(*self._partitions)
        return True

    def _compare(self) -> None:
        """Compare the following records with the entries that were known."""
        self._comparison.begin()
        self.read_again = True

    def _note_where(self, kafka: ConsumerClient) -> None:
        """Note the positions, and their leader epochs, after a complete read."""
        for partition in self._partitions:
            position = kafka.position(partition, timeout_ms=REQUEST_TIMEOUT_MS)
            if position is not None:
                self._read_to[partition] = LogEnd(position, kafka.position_epoch(partition))
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
        # The embedded broker answers ListOffsets with an offset in the last batch, which is too low.
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
