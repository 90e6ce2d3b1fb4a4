"""Reads the first records of some messages from their queue, which has them until retention removes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing

from ..kafka.clients import Clients
from ..kafka.errors import KafkaTimeoutError
from ..kafka.protocol import ConsumerClient
from ..kafka.types import ConsumedRecord, TopicPartition
from ..process import clock

#: The maximum number of other records that are read before the next wanted one; beyond it, a seek is cheaper.
MAX_PASSED = 500
#: A read fails when it makes no progress for this time.
SILENCE_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_MS = 5_000


def read_at(clients: Clients, partition: TopicPartition, offsets: Iterable[int]) -> Iterator[ConsumedRecord]:
    """The existing records of a partition at some ascending offsets.

    Raises:
      KafkaError: When Kafka does not answer.
    """
    wanted = deque(offsets)
    if not wanted:
        return
    with closing(clients.consumer(auto_offset_reset="none")) as kafka:
        kafka.assign([partition])
        log_start = kafka.beginning_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition]
        _drop_below(log_start, wanted)
        while wanted:
            kafka.seek(partition, wanted[0])
            yield from _read_near(kafka, partition, wanted)


def _read_near(
    kafka: ConsumerClient, partition: TopicPartition, wanted: deque[int]
) -> Iterator[ConsumedRecord]:
    """Read from the position while the next wanted record is near."""
    progress_s = clock.monotonic_s()
    position = wanted[0]
    while wanted and wanted[0] - position <= MAX_PASSED:
        for record in kafka.poll(timeout_ms=100).get(partition, []):
            _drop_below(record.offset, wanted)
            if wanted and wanted[0] == record.offset:
                wanted.popleft()
                yield record
        now = kafka.position(partition, timeout_ms=REQUEST_TIMEOUT_MS)
        if now is not None and now > position:
            progress_s, position = clock.monotonic_s(), now
            _drop_below(position, wanted)  # these offsets have no record
        elif clock.monotonic_s() - progress_s > SILENCE_TIMEOUT_S:
            raise KafkaTimeoutError(f"Kafka sends no record of {partition} from offset {position} on")


def _drop_below(offset: int, wanted: deque[int]) -> None:
    while wanted and wanted[0] < offset:
        wanted.popleft()
