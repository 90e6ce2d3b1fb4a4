"""A queue's consumer on a Kafka client that is not kafka-python's."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from broker.consume.consumer import QueueConsumer
from broker.kafka.clients import Clients
from broker.kafka.protocol import AdminClient, ConsumerClient
from broker.kafka.topic_layout import TopicLayout
from broker.kafka.types import GroupMember, Membership, OffsetAndMetadata, TopicPartition
from broker.offsets.commit_metadata import decode
from broker.parts import Parts, Settings, assemble
from broker.process import clock
from tests.broker.kafka.fake_consumer import FakeConsumer, FakeRecord
from tests.broker.stopped_clock import StoppedClock
from tests.waiting import wait_until

MAIL = TopicPartition("mail", 0)
SETTINGS = Settings(
    group_id="workers",
    namespace="",
    commit_interval_ms=10,
    enqueue_timeout_ms=1_000,
    session_timeout_ms=6_000,
    max_crashes=3,
    delay_index_dir=None,
    reports=False,
    history_per_s=-1,
    app_version="",
)
DEADLINE_S = 60.0
#: Longer than a consumer's pause between two polls.
POLL_S = 0.1


class FakeAdmin:
    """A cluster that has every topic, with Kafka's default settings."""

    def create_topics(self, new_topics: Mapping[str, Any], *, raise_errors: bool) -> Mapping[str, Any]:
        raise AssertionError(f"{sorted(new_topics)} exist already")

    def wait_for_topics(self, topics: Sequence[str]) -> object: ...

    def describe_topics(self, topics: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        return [{"name": topic, "error_code": 0} for topic in topics]

    def topic_names(self) -> Collection[str]:
        return []

    def topic_settings(self, topics: Iterable[str]) -> dict[str, dict[str, str | None]]:
        return {topic: {"max.message.bytes": "1048588"} for topic in topics}

    def broker_settings(self, node_id: int, names: Iterable[str]) -> dict[str, str | None]:
        return {}

    def cluster_id(self) -> str:
        return "memory"

    def node_count(self) -> int:
        return 1

    def group_members(self, group_id: str) -> Sequence[str]:
        return []

    def described_members(self, group_id: str) -> Sequence[GroupMember]:
        return []

    def group_offsets(
        self, groups: Mapping[str, Collection[TopicPartition]]
    ) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        return {group: {} for group in groups}

    def remove_members(self, members: Collection[Membership]) -> set[Membership]:
        return set()

    def delete_records(self, records_to_delete: Mapping[TopicPartition, int]) -> object: ...

    def close(self) -> None: ...


class FakeClients(Clients):
    def __init__(self, kafka: FakeConsumer) -> None:
        super().__init__("memory:9092")
        self._kafka = kafka

    def consumer(self, **settings: Any) -> ConsumerClient:
        return self._kafka

    @contextmanager
    def admin(self, *, within_s: float | None = None, **settings: Any) -> Iterator[AdminClient]:
        yield FakeAdmin()


class NoHooks:
    """A broker without middleware."""

    middleware: list[Middleware] = []  # noqa: RUF012
    actors: Mapping[str, Any] = {"send": None}
    queues: Mapping[str, Any] = {"mail": None}

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None: ...

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None: ...


def assemble_on(kafka: FakeConsumer) -> Parts:
    layout = TopicLayout(partitions=1, replication_factor=1, retention_ms=3_600_000)
    return assemble(
        NoHooks(),
        FakeClients(kafka),
        layout,
        SETTINGS,
        enqueue=lambda message: message,
        is_paused=lambda: False,
        fails_fast=lambda: False,
    )


def log_of(message: Message[Any]) -> dict[TopicPartition, list[FakeRecord]]:
    return {MAIL: [FakeRecord("mail", 0, 0, message.encode(), timestamp=time.time_ns() // 1_000_000)]}


def test_a_record_is_delivered_and_its_completion_committed() -> None:
    message: Message[Any] = Message("mail", "send", args=(7,), kwargs={}, options={})
    kafka = FakeConsumer(log_of(message))
    parts = assemble_on(kafka)
    parts.completer.start()
    consumer = QueueConsumer(parts.consumer_config("mail"), parts.for_consumers, prefetch=2, timeout_ms=100)
    try:
        delivery = next(consumer)
        assert delivery is not None
        assert (delivery.message_id, delivery.args) == (message.message_id, (7,))
        assert kafka.committed[MAIL].offset == 0

        consumer.ack(delivery)

        def is_committed() -> bool:
            assert next(consumer) is None
            return kafka.committed[MAIL].offset == 1

        wait_until(is_committed, deadline_s=DEADLINE_S, what="the commit of the completed offset")
    finally:
        consumer.close()
        parts.completer.stop(timeout_s=DEADLINE_S)
    assert decode(1, kafka.committed[MAIL].metadata).clean
    assert kafka.closed


def test_a_consumer_is_driven_step_by_step_by_a_clock_that_the_test_moves() -> None:
    kafka = FakeConsumer(log_of(Message("mail", "send", args=(7,), kwargs={}, options={})))
    parts = assemble_on(kafka)
    with clock.use(StoppedClock()):
        began_s = clock.monotonic_s()
        consumer = QueueConsumer(parts.consumer_config("mail"), parts.for_consumers, prefetch=2, timeout_ms=0)

        assert consumer.step() is None, "the first poll assigns the partition"
        clock.sleep(POLL_S)
        delivery = consumer.step()  # it takes the partition over, and reads it

        assert delivery is not None
        consumer.ack(delivery)
        clock.sleep(SETTINGS.commit_interval_ms / 1000)
        assert consumer.step() is None
        assert kafka.committed[MAIL].offset == 1
        assert clock.monotonic_s() - began_s == pytest.approx(POLL_S + SETTINGS.commit_interval_ms / 1000), (
            "a step has waited"
        )
        consumer.close()
    assert kafka.closed
