"""Repairs a queue's lanes topic after it has lost its tail."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing

from ..kafka.clients import Clients
from ..kafka.errors import KafkaTimeoutError
from ..kafka.protocol import ConsumerClient
from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.commit_metadata import CommitState
from ..offsets.committed_lanes import Differences
from ..partition_keys.acknowledged_ends import AcknowledgedEnds
from ..partition_keys.lane import SequenceNumber
from ..partition_keys.lane_differences import lane_differences
from ..partition_keys.record_format import (
    Place,
    Waiting,
    lane_of,
    read_requeue_headers,
    tombstone,
    waiting_record,
    without_own,
)
from ..partition_keys.waiting_store import WaitingStore
from ..process import clock
from ..produce.publisher import Publisher, Record, publish_all

logger = logging.getLogger(__name__)

#: The number of records in one publish.
BATCH = 200
#: The maximum number of other records that are read before the next wanted one; beyond it, a seek is cheaper.
MAX_PASSED = 500
#: A read fails when it makes no progress for this time.
SILENCE_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_MS = 5_000


class LaneRepair:
    """Writes the lost records of a lanes topic again, from the records of its queue.

    The queue still has the first record of a waiting message, unless retention has removed it.

    Raises (its methods): KafkaError and KafkaUnavailable when Kafka does not answer, or does not acknowledge
      the records. The repair can be repeated then.
    """

    def __init__(
        self,
        clients: Clients,
        publisher: Publisher,
        written: AcknowledgedEnds,
        log: WaitingStore,
        *,
        group: str,
        queue_topic: str,
        lanes_topic: str,
    ) -> None:
        self._clients = clients
        self._publisher = publisher
        self._written = written
        self._log = log
        self._group = group
        self._queue_topic = queue_topic
        self._lanes_topic = lanes_topic

    def repair(self, states: Mapping[TopicPartition, CommitState]) -> None:
        """Compare the lanes topic with the commits of the last owners of partitions, and repair it."""
        committed = {partition.partition: state for partition, state in states.items()}
        found = lane_differences(self._log, committed)
        if not found:
            return
        lost = {number: found[number].lost for number in found}
        back = self.write_again(lost)
        done = self._end(found)
        if back and not self._log.is_there:
            raise KafkaTimeoutError(
                f"The topic {self._lanes_topic!r} was created and is not in the metadata yet"
            )
        self._log.catch_up()
        omitted = sum(lanes.omitted for n in found if (lanes := committed[n].lanes) is not None)
        missing = sum(map(len, lost.values())) - back
        if back or done or missing or omitted:
            logger.error(
                "The topic %r has lost its tail since the last owners of %s wrote to it: the records of %d "
                "waiting message(s) were written again from the queue's own records, and the tombstones of "
                "%d completed one(s). %d waiting message(s) are lost, as retention removed their records. "
                "The commits had no room for the offsets of %d further waiting message(s): if the topic has "
                "lost them, they do not run; if they are done, they run again.",
                self._lanes_topic, [f"{self._queue_topic}[{number}]" for number in sorted(found)],
                back, done, missing, omitted,
            )  # fmt: skip

    def write_again(self, lost: Mapping[int, Iterable[int]]) -> int:
        """Write the records of waiting messages again that the topic has lost.

        Parameters:
          lost: The offsets of their first records, ascending, by partition of the queue.

        Returns:
          The number of messages whose first records still exist.
        """
        written = 0
        for number, offsets in lost.items():
            batch: list[Record] = []
            for record in self._records_at(TopicPartition(self._queue_topic, number), offsets):
                if (waiting := self._waiting(record)) is None:
                    continue
                batch.append(waiting)
                if len(batch) == BATCH:
                    written += self._publish(batch)
                    batch = []
            written += self._publish(batch)
        return written

    def _end(self, found: Mapping[int, Differences]) -> int:
        """Write the tombstones of completed messages again."""
        records = [
            tombstone(
                self._lanes_topic,
                Place(self._group, number, sequence),
                partition=kept_in,
                watch=self._watch,
            )
            for number, differences in found.items()
            if (done := set(differences.done))
            for _, sequence, _, kept_in in self._log.waiting(number)
            if sequence.offset in done
        ]
        return self._publish(records)

    def _waiting(self, record: ConsumedRecord) -> Record | None:
        """The record of the lanes topic for a waiting message, from its first record in its queue."""
        key = lane_of(record.headers)
        if key is None or record.value is None or read_requeue_headers(record.headers) is not None:
            return None  # the offset has another record now
        sequence = SequenceNumber(record.offset, record.timestamp)
        place = Place(self._group, record.partition, sequence)
        waiting = Waiting(place, key, 0, record.value, without_own(record.headers))
        return waiting_record(self._lanes_topic, waiting, destination=self._queue_topic, watch=self._watch)

    def _watch(self, partition: int, offset: int | None, leader_epoch: int = -1) -> None:
        if offset is not None:
            self._written.note(self._lanes_topic, partition, offset, leader_epoch)

    def _publish(self, records: list[Record]) -> int:
        doing = f"The lost records of {self._lanes_topic!r} could not be written again"
        publish_all(self._publisher, records, doing)
        return len(records)

    def _records_at(self, partition: TopicPartition, offsets: Iterable[int]) -> Iterator[ConsumedRecord]:
        """The existing records of a queue at some ascending offsets."""
        wanted = deque(offsets)
        if not wanted:
            return
        with closing(self._clients.consumer(auto_offset_reset="none")) as kafka:
            kafka.assign([partition])
            start = kafka.beginning_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition]
            _drop_below(start, wanted)
            while wanted:
                kafka.seek(partition, wanted[0])
                yield from _read_near(kafka, partition, wanted)


def _read_near(
    kafka: ConsumerClient, partition: TopicPartition, wanted: deque[int]
) -> Iterator[ConsumedRecord]:
    """Read from the position while the next wanted record is near."""
    heard_s = clock.monotonic_s()
    position = wanted[0]
    while wanted and wanted[0] - position <= MAX_PASSED:
        for record in kafka.poll(timeout_ms=100).get(partition, []):
            _drop_below(record.offset, wanted)
            if wanted and wanted[0] == record.offset:
                wanted.popleft()
                yield record
        now = kafka.position(partition, timeout_ms=REQUEST_TIMEOUT_MS)
        if now is not None and now > position:
            heard_s, position = clock.monotonic_s(), now
            _drop_below(position, wanted)  # these offsets have no record
        elif clock.monotonic_s() - heard_s > SILENCE_TIMEOUT_S:
            raise KafkaTimeoutError(f"Kafka sends no record of {partition} from offset {position} on")


def _drop_below(offset: int, wanted: deque[int]) -> None:
    while wanted and wanted[0] < offset:
        wanted.popleft()
