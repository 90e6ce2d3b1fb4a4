"""Reads partitions of one topic to their ends, without a consumer group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Any

from ..process import clock
from .clients import Clients
from .errors import KafkaTimeoutError
from .types import ConsumedRecord, TopicPartition
from .watermarks import high_watermarks

#: The time for which Kafka may show an earlier end than it has acknowledged.
STALE_TIMEOUT_S = 1.0
_POLL_MS = 100
_NOTHING: Mapping[TopicPartition, int] = MappingProxyType({})


class StaleRead(KafkaTimeoutError):
    """Kafka shows an earlier end of a topic than it has acknowledged."""


class TopicReader:
    """A consumer without a group, for one topic. Use it from one thread at a time.

    Every method that sends requests raises KafkaError when Kafka does not answer.

    Parameters:
      topic: The name of a topic; it need not exist.
      stall_timeout_s: The time for which a read may make no progress before the end.
      request_timeout_ms: The timeout of a request for offsets.
      settings: Further settings of kafka-python's consumer.

    Attributes:
      kafka: The consumer.
      partitions: The partitions that :meth:`add` has added, in that order.
    """

    def __init__(
        self,
        clients: Clients,
        topic: str,
        *,
        stall_timeout_s: float,
        request_timeout_ms: int,
        **settings: Any,
    ) -> None:
        self.topic = topic
        self.kafka = clients.consumer(**settings)
        self.partitions: list[TopicPartition] = []
        self._stall_timeout_s = stall_timeout_s
        self._request_timeout_ms = request_timeout_ms

    def add(self, numbers: Iterable[int]) -> None:
        """Read further partitions of the topic, from their beginnings."""
        added = [TopicPartition(self.topic, number) for number in sorted(numbers)]
        if not added:
            return
        self.kafka.assign(self.partitions + added)
        self.kafka.seek_to_beginning(*added)
        self.partitions = self.partitions + added

    def rewind(self) -> None:
        """Read all partitions from their beginnings again."""
        self.kafka.seek_to_beginning(*self.partitions)

    def ends(self) -> dict[TopicPartition, int]:
        """The offsets after the last records, according to the leaders now."""
        return self.kafka.end_offsets(self.partitions, timeout_ms=self._request_timeout_ms)

    def position(self, partition: TopicPartition) -> int | None:
        """The offset of the next record that :meth:`read` yields; None when it is not known."""
        return self.kafka.position(partition, timeout_ms=self._request_timeout_ms)

    def read(
        self,
        ends: Mapping[TopicPartition, int],
        *,
        acknowledged: Mapping[TopicPartition, int] = _NOTHING,
    ) -> Iterator[dict[TopicPartition, list[ConsumedRecord]]]:
        """Read from the positions, at least up to ``ends``, and up to the present ends.

        A further call invalidates this iterator.

        Parameters:
          ends: The partitions to read, all of them assigned, and offsets that are within their logs.
          acknowledged: Ends that Kafka has acknowledged, of these partitions. A former leader that was frozen
            shows earlier ones.

        Yields:
          The records of one poll, by partition; never an empty dictionary.

        Raises:
          StaleRead: When Kafka shows less than ``acknowledged`` for STALE_TIMEOUT_S.
          KafkaTimeoutError: When the read makes no progress for ``stall_timeout_s``.
        """
        progress_s = clock.monotonic_s()
        behind = self._behind(ends, acknowledged)
        while behind:
            if records := self.kafka.poll(timeout_ms=_POLL_MS):
                yield records
            before, behind = behind, self._behind(ends, acknowledged)
            silent_s = clock.monotonic_s() - progress_s
            # A position moves without a record over those that compaction removed, and over control records.
            if records or behind != before:
                progress_s = clock.monotonic_s()
            elif silent_s > STALE_TIMEOUT_S and not self._behind(ends, _NOTHING):
                self.kafka.request_metadata()  # the leader may have changed
                raise StaleRead(
                    f"Kafka shows less of {sorted(behind)} than it has acknowledged: at least "
                    f"{ {p.partition: acknowledged[p] for p in behind} } record(s)"
                )
            elif silent_s > self._stall_timeout_s:
                missing = ", ".join(f"{p.partition}: {behind[p]} of {ends[p]}" for p in behind)
                topics = ", ".join(sorted({repr(p.topic) for p in behind}))
                raise KafkaTimeoutError(
                    f"Kafka sent nothing more of the topic {topics} for {self._stall_timeout_s} s. Its "
                    f"partitions are read up to these offsets: {missing}"
                )

    def close(self) -> None:
        self.kafka.close(autocommit=False)

    def _behind(
        self, ends: Mapping[TopicPartition, int], acknowledged: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int | None]:
        """The partitions that are not read to their ends, each with its position."""
        behind = {}
        for partition, end in ends.items():
            position = self.position(partition)
            # The embedded broker answers ListOffsets with an offset in the last batch, which is too low.
            wanted = max(end, self.kafka.highwater(partition) or 0, acknowledged.get(partition, 0))
            if position is None or position < wanted:
                behind[partition] = position
        return behind


def records_since(
    clients: Clients, topic: str, since_ms: int, *, stall_timeout_s: float, request_timeout_ms: int
) -> Iterator[ConsumedRecord]:
    """Read the records of a topic from a time on; none when the topic does not exist.

    Parameters:
      since_ms: The least timestamp, in milliseconds since 1970.
      stall_timeout_s, request_timeout_ms: Those of TopicReader.

    Raises:
      KafkaError: When Kafka does not answer.
    """
    reader = TopicReader(
        clients,
        topic,
        stall_timeout_s=stall_timeout_s,
        request_timeout_ms=request_timeout_ms,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=10,
    )
    with closing(reader):
        reader.add(reader.kafka.partitions_for_topic(topic))
        if not reader.partitions:
            return
        ends = high_watermarks(reader.kafka, reader.partitions)
        starts = reader.kafka.offsets_for_times(
            dict.fromkeys(reader.partitions, since_ms), timeout_ms=request_timeout_ms
        )
        for partition in reader.partitions:
            start = starts.get(partition)
            reader.kafka.seek(partition, ends[partition] if start is None else start.offset)
        for batches in reader.read(ends):
            for records in batches.values():
                yield from records
