"""What a worker asks Kafka when it is given partitions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import dramatiq
import pytest
from kafka import KafkaConsumer

from tests.broker.conftest import MakeBroker
from tests.waiting import wait_until

PARTITIONS = 24
DEADLINE_S = 60.0


def test_the_requests_of_a_takeover_do_not_grow_with_the_partitions(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make_broker(partitions=PARTITIONS)
    task = dramatiq.actor(broker=broker, actor_name="task")(lambda: None)
    broker.enqueue_many(task.message() for _ in range(10 * PARTITIONS))
    asked = counted(
        monkeypatch, "commit", "committed", "partitions_for_topic", "beginning_offsets", "end_offsets"
    )

    consumer = broker.consume("default", prefetch=10 * PARTITIONS, timeout=100)
    try:
        wait_until(
            lambda: next(consumer) is not None and len(consumer._assigned_partitions) == PARTITIONS,
            deadline_s=DEADLINE_S,
            what="a delivery, and all partitions",
        )
    finally:
        consumer.close()
    # A rebalance that comes in parts asks again for each part.
    assert max(asked.values()) < PARTITIONS / 2, asked


def counted(monkeypatch: pytest.MonkeyPatch, *methods: str) -> Counter[str]:
    """Count the calls of these methods of kafka-python's consumers, each of which waits for an answer."""
    calls: Counter[str] = Counter()

    def count(name: str) -> None:
        method = getattr(KafkaConsumer, name)

        def call(self: KafkaConsumer, *args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return method(self, *args, **kwargs)

        monkeypatch.setattr(KafkaConsumer, name, call)

    for name in methods:
        count(name)
    return calls
