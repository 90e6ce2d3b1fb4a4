"""A producer of a cluster in memory; see ``protocol.ProducerClient``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...kafka.errors import IllegalStateError, KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from ...kafka.protocol import SendFuture
from ...kafka.types import Headers, TopicPartition
from ...process import clock
from .cluster import MemoryCluster, MemoryProcess
from .faults import Request
from .log import MemoryRecord

#: The pause before a record is sent again that was refused for the moment.
RETRY_GAP_S = 0.1


class MemorySend:
    """A record on its way; see ``protocol.SendFuture``."""

    def __init__(
        self, producer: MemoryProducer, partition: TopicPartition, append: Callable[[], MemoryRecord]
    ) -> None:
        self.partition = partition
        self.append = append
        self.deadline_s = clock.monotonic_s() + producer.config["delivery_timeout_ms"] / 1000
        self.is_done = False
        self.exception: BaseException | None = None
        self._value: MemoryRecord | None = None
        self._producer = producer
        self._callbacks: list[Callable[[Any], None]] = []

    @property
    def value(self) -> MemoryRecord:
        assert self._value is not None
        return self._value

    def succeeded(self) -> bool:
        return self.is_done and self.exception is None

    def get(self, timeout: float | None = None) -> MemoryRecord:
        until_s = min(
            self.deadline_s, clock.monotonic_s() + (self.deadline_s if timeout is None else timeout)
        )
        while not self.is_done:
            self._producer.send_pending()
            if self.exception is not None or self._value is not None:
                break
            if (left_s := until_s - clock.monotonic_s()) <= 0.0:
                raise KafkaTimeoutError(f"no answer within {timeout} s")
            self._producer.wait(min(left_s, RETRY_GAP_S))
        if self.exception is not None:
            raise self.exception
        return self.value

    def add_both(self, callback: Callable[[Any], None]) -> MemorySend:
        if self.is_done:
            callback(self.exception or self._value)
        else:
            self._callbacks.append(callback)
        return self

    def end(self, value: MemoryRecord | None, exception: BaseException | None = None) -> None:
        self._value, self.exception = value, exception
        self.is_done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(exception or value)


class _Metadata:
    """The metadata that a partitioner of kafka-python asks for."""

    def __init__(self, producer: MemoryProducer) -> None:
        self._producer = producer

    def topics(self) -> set[str]:
        return self._producer.known_topics()

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self._producer.known_partitions(topic)

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        return self._producer.known_partitions(topic)


class MemoryProducer:
    """See ``protocol.ProducerClient``."""

    DEFAULT_CONFIG: Mapping[str, Any] = {
        "acks": "all",
        "bootstrap_timeout_ms": 10_000,
        "client_id": "memory",
        "delivery_timeout_ms": 120_000,
        "enable_idempotence": True,
        "linger_ms": 0,
        "max_block_ms": 60_000,
        "max_request_size": 1_048_576,
        "partitioner": None,
        "request_timeout_ms": 30_000,
    }

    def __init__(self, cluster: MemoryCluster, process: MemoryProcess, **settings: Any) -> None:
        self.config: Mapping[str, Any] = {**self.DEFAULT_CONFIG, **settings}
        self._cluster = cluster
        self._process = process
        self._lock = threading.RLock()
        self._pending: list[MemorySend] = []
        self._errors: dict[TopicPartition, tuple[float, BaseException]] = {}
        self._turns: dict[str, int] = {}
        self._closed = False
        cluster.add_producer(self)

    def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> SendFuture:
        self._process.check()
        if self._closed:
            raise IllegalStateError("the producer is closed")
        chosen = TopicPartition(topic, self._partition(topic, key, value, partition))
        append = partial(self._cluster.append, chosen, key, value, tuple(headers or ()), timestamp_ms)
        send = MemorySend(self, chosen, append)
        size = MemoryRecord(topic, 0, 0, 0, 0, key, value, tuple(headers or ())).size
        if size > self.config["max_request_size"]:
            send.end(None, MessageSizeTooLargeError(f"{size} bytes are more than max_request_size"))
            return send
        with self._lock:
            self._pending.append(send)
        self.send_pending()
        return send

    def _partition(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None) -> int:
        known = self.known_partitions(topic) or {0}
        if partition is not None:
            if partition not in known:
                raise ValueError(f"Unrecognized partition {partition} of {topic}")
            return partition
        if key is not None:
            if self.config["partitioner"] is None:
                return sum(key) % len(known)
            return int(self.config["partitioner"].partition(topic, key, key, value, value, _Metadata(self)))
        turn = self._turns[topic] = self._turns.get(topic, -1) + 1
        return sorted(known)[turn % len(known)]

    def send_pending(self) -> None:
        """Send what waits, in order, as far as the cluster takes it."""
        with self._lock:
            if self._process.is_killed:
                return
            left: list[MemorySend] = []
            for send in self._pending:
                if self._closed or not self._try(send):
                    left.append(send)
            self._pending = [send for send in left if not send.is_done]

    def _try(self, send: MemorySend) -> bool:
        """Send a record, unless the cluster cannot be reached; whether its fate is known."""
        now_s = clock.monotonic_s()
        if self._cluster.reachable.is_set():
            try:
                record = self._cluster.request(
                    self._process,
                    Request.PRODUCE,
                    send.append,
                    timeout_s=max(0.0, send.deadline_s - now_s),
                    topic=send.partition.topic,
                )
            except KafkaError as e:
                self._errors[send.partition] = now_s, e
                if not e.retriable or isinstance(e, KafkaTimeoutError):
                    send.end(None, e)
                    return True
            else:
                send.end(record)
                return True
        if now_s >= send.deadline_s:
            self._cluster.time_out(send.append)
            send.end(None, KafkaTimeoutError(f"a record for {send.partition} was not sent in time"))
            return True
        return False

    def wait(self, timeout_s: float) -> None:
        """Wait for a moment, for the cluster if that is what is missing."""
        if self._cluster.reachable.is_set():
            clock.sleep(timeout_s)
        else:
            clock.wait(self._cluster.reachable, timeout_s)

    def partition_of(self, future: SendFuture) -> TopicPartition:
        assert isinstance(future, MemorySend)
        return future.partition

    def last_error(self, partition: TopicPartition, *, since_s: float) -> BaseException | None:
        at_s, error = self._errors.get(partition, (0.0, None))
        return error if at_s >= since_s else None

    def partitions_for(self, topic: str) -> set[int]:
        return self._cluster.request(
            self._process,
            Request.METADATA,
            lambda: self.known_partitions(topic) or set(),
            timeout_s=self.config["max_block_ms"] / 1000,
            topic=topic,
        )

    def known_topics(self) -> set[str]:
        return set(self._cluster.topics)

    def known_partitions(self, topic: str) -> set[int] | None:
        return self._cluster.known_partitions(topic)

    def leader_epoch(self, partition: TopicPartition) -> int | None:
        known = self.known_partitions(partition.topic)
        if known is None or partition.partition not in known:
            return None
        return self._cluster.log(partition).leader_epoch

    def wait_for_topic(self, topic: str, timeout_ms: float) -> None:
        if not self._cluster.reachable.is_set() or self.known_partitions(topic) is None:
            clock.wait(self._cluster.reachable, timeout_ms / 1000)
            if self.known_partitions(topic) is None:
                raise KafkaTimeoutError(f"the topic {topic!r} is not known within {timeout_ms} ms")

    def refresh_metadata(self, *, timeout_s: float) -> None:
        """Metadata is never old."""

    def close(self, timeout: float | None = None) -> None:
        if self._process.is_killed:
            return  # nothing is sent any more, and no thread is left that could hear of it
        deadline_s = clock.monotonic_s() + (timeout or 0.0)
        self.send_pending()
        while self._pending and clock.monotonic_s() < deadline_s:
            self.wait(RETRY_GAP_S)
            self.send_pending()
        if self._pending:
            raise KafkaTimeoutError(f"{len(self._pending)} records could not be sent")
        self._closed = True

    def force_close(self) -> None:
        with self._lock:
            self._closed = True
            left, self._pending = self._pending, []
        for send in left:
            send.end(None, IllegalStateError("the producer was closed"))
