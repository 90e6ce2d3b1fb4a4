"""A queue's first message, in a namespace that nothing of it exists in yet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest

from broker import KafkaUnavailable
from broker.kafka.clients import Clients
from broker.kafka.protocol import AdminClient
from broker.kafka.topic_layout import TopicLayout
from broker.kafka.topics import Topics
from dev.stack import Stack
from tests.broker.conftest import MakeBroker
from tests.waiting import wait_until

DEADLINE_S = 60.0
#: Longer than joining a group takes on any stack.
CONSUMER_TIMEOUT_MS = 40_000


def test_a_consumer_begins_with_its_partitions_when_it_gets_them_and_not_when_its_wait_is_over(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()

    @dramatiq.actor(broker=broker)
    def task() -> None: ...

    consumer = broker.consume("default", timeout=CONSUMER_TIMEOUT_MS)
    try:
        message = task.send()
        delivery = next(consumer)
        assert delivery is not None, "the consumer has waited for nothing while its partitions were there"
        assert delivery.message_id == message.message_id
        consumer.ack(delivery)
    finally:
        consumer.close()


class CountedClients(Clients):
    """Clients that count their questions to the cluster, and answer the first one only when told to."""

    def __init__(self, bootstrap_servers: str) -> None:
        super().__init__(bootstrap_servers)
        self.questions = 0
        self.go_on = threading.Event()

    @contextmanager
    def admin(self, **settings: Any) -> Iterator[AdminClient]:
        self.questions += 1
        assert self.go_on.wait(DEADLINE_S)
        with super().admin(**settings) as admin:
            yield admin


def ensure_concurrently(clients: CountedClients, topics: Topics, wanted: list[str]) -> list[str]:
    """Ensure each topic in a thread of its own, all while the first one waits; return those that failed."""
    failed: list[str] = []

    def ensure(name: str) -> None:
        try:
            topics.ensure([topics.queue(name)])
        except KafkaUnavailable:
            failed.append(name)

    first, *others = [threading.Thread(target=ensure, args=[name]) for name in wanted]
    first.start()
    wait_until(lambda: clients.questions, deadline_s=DEADLINE_S, what="the first question")
    for thread in others:
        thread.start()
    clients.go_on.set()
    for thread in (first, *others):
        thread.join(DEADLINE_S)
    return failed


def existing(clients: Clients, topics: Topics, names: list[str]) -> list[str]:
    with Clients.admin(clients) as admin:
        described = admin.describe_topics([topics.queue(name) for name in names])
    found = {topic["name"] for topic in described if topic["error_code"] == 0}
    return [name for name in names if topics.queue(name) in found]


def test_topics_that_many_threads_need_at_once_are_created_together(stack: Stack, namespace: str) -> None:
    clients = CountedClients(stack.bootstrap_servers)
    topics = Topics(clients, TopicLayout(1, 1, 3_600_000), namespace=namespace)
    names = [f"queue-{number}" for number in range(12)]
    assert ensure_concurrently(clients, topics, names) == []
    assert existing(clients, topics, names) == names
    assert clients.questions < len(names) / 2


@pytest.mark.real_kafka("it takes any name for a topic's")
def test_a_topic_that_cannot_be_created_fails_those_who_need_it_and_no_others(
    stack: Stack, namespace: str
) -> None:
    clients = CountedClients(stack.bootstrap_servers)
    topics = Topics(clients, TopicLayout(1, 1, 3_600_000), namespace=namespace)
    names = ["first", "no such name!", *(f"queue-{number}" for number in range(4))]
    assert ensure_concurrently(clients, topics, names) == ["no such name!"]
    assert existing(clients, topics, names) == [name for name in names if name != "no such name!"]
