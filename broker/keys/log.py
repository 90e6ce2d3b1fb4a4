"""Reads a queue's lanes topic."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable

from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, KafkaTimeoutError, LogTruncationError
from kafka.structs import TopicPartition

from ..clients import Clients
from ..epochs import EpochEnds, epoch_of_position
from ..forks import leave_to_parent, survive
from ..truncation import is_cut
from .lanes import Order
from .mending import SCHEMA, Comparison, unpack
from .records import Place, Waiting, read

logger = logging.getLogger(__name__)

#: How long Kafka may send nothing of what it says it has.
SILENCE_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_MS = 5_000

_PLACE = "partition = ? AND first_offset = ? AND timestamp = ?"


class LanesLog:
    """What waits for a group in a lanes topic, in a temporary file of SQLite's. Use it from one thread at a
    time.

    Nothing is asked of Kafka before :meth:`catch_up`, and a topic that does not exist holds nothing.

    Parameters:
      mend: Called when the topic has lost its tail, until it does not raise: with what waited and is not in
        the topic any more, and with what did not wait any more and is in it again.

    Attributes:
      ended: What has ceased to wait, and the key of each. Whoever has dealt with one takes it out; one that
        waits again is taken out by :meth:`catch_up`.

    Raises (its methods that ask Kafka): KafkaError and KafkaUnavailable when it does not answer.
    """

    def __init__(
        self,
        clients: Clients,
        topic: str,
        group: str,
        *,
        mend: Callable[[list[Waiting], list[Waiting]], None] = lambda lost, back: None,
    ) -> None:
        self._clients = clients
        self._topic = topic
        self._group = group
        self.ended: dict[Place, bytes] = {}
        self._kafka: KafkaConsumer | None = None
        self._partitions: list[TopicPartition] = []
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute(SCHEMA)
        self._comparison = Comparison(self._db, group)
        self._mend = mend
        self._to_mend: tuple[list[Waiting], list[Waiting]] | None = None
        self._read_to: dict[TopicPartition, tuple[int, int]] = {}  # the position, and the leader epoch there
        survive(self)

    def begin_anew(self) -> None:
        """Leave the file to the parent. Whoever has one of these in the child makes another."""
        leave_to_parent(self._db)

    def catch_up(self) -> None:
        """Read up to what is the end now."""
        try:
            is_new = not self._partitions
            if not self._is_connected():
                return
            kafka = self._kafka
            assert kafka is not None
            epochs = {partition: epoch for partition, (_, epoch) in self._read_to.items()}
            asked = EpochEnds(kafka, epochs, timeout_ms=REQUEST_TIMEOUT_MS)
            ends = kafka.end_offsets(self._partitions, timeout_ms=REQUEST_TIMEOUT_MS)
            self._look_for_lost_tail(kafka, asked)
            if is_new:
                self._db.execute("DELETE FROM waiting")  # it is read from the beginning
            heard_s = time.monotonic()
            while any(self._is_behind(kafka, partition, end) for partition, end in ends.items()):
                batches = kafka.poll(timeout_ms=100)
                self._db.execute("BEGIN")
                for records in batches.values():
                    for record in records:
                        self._apply(record)
                self._db.execute("COMMIT")
                if batches:
                    heard_s = time.monotonic()
                elif time.monotonic() - heard_s > SILENCE_TIMEOUT_S:
                    raise KafkaTimeoutError(f"Kafka sends nothing more of the topic {self._topic!r}")
            self._note_where(kafka)
            if self._to_mend is not None:
                self._mend(*self._to_mend)
                self._to_mend = None
                self.catch_up()
        except KafkaError as e:
            if isinstance(e, LogTruncationError):
                self._comparison.begin()
            self._disconnect()
            raise

    def waiting(self, partition: int) -> list[tuple[bytes, Order, int]]:
        """What waits of a partition of the queue, as (key, order number, due time), in order."""
        found = self._db.execute(
            "SELECT key, first_offset, timestamp, due_ms FROM waiting WHERE partition = ?"
            " ORDER BY first_offset, timestamp",
            (partition,),
        )
        return [(key, Order(offset, timestamp), due_ms) for key, offset, timestamp, due_ms in found]

    def get(self, place: Place) -> Waiting | None:
        """The message that waits at a place; None when it does not any more."""
        found = self._db.execute(
            f"SELECT key, due_ms, value, headers FROM waiting WHERE {_PLACE}",
            (place.partition, *place.order),
        ).fetchone()
        if found is None:
            return None
        key, due_ms, value, packed = found
        return Waiting(place, key, due_ms, value, unpack(packed))

    def places(self) -> list[Place]:
        """Where everything that waits first stood."""
        found = self._db.execute("SELECT partition, first_offset, timestamp FROM waiting")
        return [
            Place(self._group, partition, Order(offset, timestamp)) for partition, offset, timestamp in found
        ]

    def count(self) -> int:
        counted: int = self._db.execute("SELECT count(*) FROM waiting").fetchone()[0]
        return counted

    def close(self) -> None:
        self._disconnect()
        self._db.close()

    def _apply(self, record: ConsumerRecord) -> None:
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
                f"DELETE FROM waiting WHERE {_PLACE} RETURNING key", (place.partition, *place.order)
            ).fetchone()
            if found is not None:
                self.ended[place] = found[0]
            return
        self.ended.pop(place, None)
        packed = json.dumps([(name, (text or b"").decode("latin-1")) for name, text in waiting.headers])
        self._db.execute(
            "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?)",
            (place.partition, *place.order, waiting.key, waiting.due_ms, waiting.value, packed),
        )

    def _is_connected(self) -> bool:
        """Whether there is a topic to read; connects to it."""
        if self._partitions:
            return True
        if self._kafka is None:
            self._kafka = self._clients.consumer(auto_offset_reset="none", fetch_max_wait_ms=10)
        numbers = sorted(self._kafka.partitions_for_topic(self._topic))
        if not numbers:
            return False
        self._partitions = [TopicPartition(self._topic, number) for number in numbers]
        self._kafka.assign(self._partitions)
        self._kafka.seek_to_beginning(*self._partitions)
        return True

    def _look_for_lost_tail(self, kafka: KafkaConsumer, asked: EpochEnds) -> None:
        """Read from the beginning again what has other records now than it had when it was read."""
        if any(is_cut(*self._read_to[partition], answer) for partition, answer in asked.answers().items()):
            logger.error(
                "The topic %r lost its tail, as it does when a replica without it is elected (an unclean "
                "election); it is read again.", self._topic,
            )  # fmt: skip
            self._comparison.begin()
            kafka.seek_to_beginning(*self._partitions)

    def _note_where(self, kafka: KafkaConsumer) -> None:
        """Note up to where everything was read."""
        for partition in self._partitions:
            position = kafka.position(partition, timeout_ms=REQUEST_TIMEOUT_MS)
            if position is not None:
                self._read_to[partition] = position, epoch_of_position(kafka, partition)
        if self._comparison.active:
            self._to_mend = self._comparison.finish()

    def _disconnect(self) -> None:
        kafka, self._kafka, self._partitions = self._kafka, None, []
        if kafka is not None:
            kafka.close(autocommit=False)

    def _is_behind(self, kafka: KafkaConsumer, partition: TopicPartition, end: int) -> bool:
        # The end that is asked for is too low on the embedded broker: it is in the last batch, not after it.
        position = kafka.position(partition, timeout_ms=REQUEST_TIMEOUT_MS)
        return position is None or position < max(end, kafka.highwater(partition) or 0)
