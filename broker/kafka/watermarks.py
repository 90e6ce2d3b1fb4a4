"""The ends of partitions."""

from __future__ import annotations

from collections.abc import Collection

from ..process import clock
from .errors import KafkaTimeoutError
from .protocol import ConsumerClient
from .types import TopicPartition

#: The timeout of the fetches that carry the high watermarks.
FETCH_TIMEOUT_S = 10.0


def high_watermarks(
    kafka: ConsumerClient, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Read the offset after the last record of each partition, from fetch responses.

    ListOffsets would be the direct way, but the embedded broker (Tansu) answers with the offset after the
    *first* record of the last batch. Every broker has the right offset in its fetch responses.

    Parameters:
      kafka: A consumer without a subscription; it is assigned ``partitions``.

    Raises:
      KafkaTimeoutError: When Kafka does not answer in FETCH_TIMEOUT_S.
    """
    kafka.assign(list(partitions))
    for partition, claimed in kafka.end_offsets(list(partitions)).items():
        kafka.seek(partition, claimed)
    deadline_s = clock.monotonic_s() + FETCH_TIMEOUT_S
    while True:
        heard = {partition: kafka.highwater(partition) for partition in partitions}
        ends = {partition: end for partition, end in heard.items() if end is not None}
        if len(ends) == len(heard):
            return ends
        missing = [partition for partition in heard if partition not in ends]
        if clock.monotonic_s() > deadline_s:
            raise KafkaTimeoutError(f"no fetch was answered for {missing} within {FETCH_TIMEOUT_S} s")
        kafka.poll(timeout_ms=50)
