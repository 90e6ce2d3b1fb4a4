"""Which queues there are."""

from __future__ import annotations

import dramatiq
import pytest
from dramatiq import Broker
from dramatiq.errors import QueueNotFound

from broker import InvalidQueueName
from tests.broker.contract.backends import KafkaBackend


def test_the_declared_queues_are_those_of_the_actors_and_those_declared_by_hand(broker: Broker) -> None:
    dramatiq.actor(broker=broker, actor_name="a", queue_name="actors-queue")(lambda: None)
    broker.declare_queue("by_hand")
    broker.declare_queue("by_hand")
    delay_queues = broker.get_declared_delay_queues()
    assert broker.get_declared_queues() - delay_queues == {"actors-queue", "by_hand"}


def test_a_consumer_of_a_queue_that_nobody_declared_is_refused(broker: Broker) -> None:
    with pytest.raises(QueueNotFound):
        broker.consume("nowhere")


@pytest.mark.parametrize("name", ["", "1st", "with space", "with/slash", "ünïcode"])
def test_dramatiq_refuses_an_actor_on_a_queue_with_such_a_name(broker: Broker, name: str) -> None:
    with pytest.raises(ValueError, match="Queue names must start with"):
        dramatiq.actor(broker=broker, actor_name="a", queue_name=name)(lambda: None)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "only ASCII letters"),
        ("with space", "only ASCII letters"),
        ("слово", "only ASCII letters"),
        ("line\n", "only ASCII letters"),
        ("q" * 246, "Kafka allows 249"),
        ("delayed", "holds the delayed messages"),
        ("mail_dlq", "kept for dead letters"),
        ("mail.DQ", "Dramatiq keeps"),
        ("mail.XQ", "Dramatiq keeps"),
    ],
)
def test_a_name_that_kafka_cannot_hold_is_refused_at_declaration_with_the_rule(
    kafka_backend: KafkaBackend, name: str, rule: str
) -> None:
    broker = kafka_backend.broker()
    with pytest.raises(InvalidQueueName, match=rule):
        broker.declare_queue(name)
    assert name not in broker.get_declared_queues()


def test_two_queues_that_kafka_cannot_tell_apart_are_refused_at_declaration(
    kafka_backend: KafkaBackend,
) -> None:
    broker = kafka_backend.broker()
    broker.declare_queue("a_b")
    broker.declare_queue("a_b")
    with pytest.raises(InvalidQueueName, match="it is 'a_b'"):
        broker.declare_queue("a.b")
    broker.declare_queue("a-b")
    assert broker.get_declared_queues() == {"a_b", "a-b"}


def test_an_actor_on_a_queue_that_kafka_cannot_hold_is_refused(kafka_backend: KafkaBackend) -> None:
    with pytest.raises(InvalidQueueName, match="holds the delayed messages"):
        dramatiq.actor(broker=kafka_backend.broker(), actor_name="a", queue_name="delayed")(lambda: None)
