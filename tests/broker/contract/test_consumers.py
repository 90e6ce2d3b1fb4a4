"""Consumers as a worker uses them: deliveries out, acks and nacks in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from dramatiq import Broker, Message
from dramatiq.broker import Consumer, MessageProxy

from broker import KafkaBroker
from broker.deliveries.delivery import Delivery
from broker.produce.record import Record
from tests.broker.contract.backends import KafkaBackend
from tests.waiting import wait_until

DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = 60_000
IDLE_TIMEOUT_MS = 200

Consume = Callable[..., Consumer]


@pytest.fixture
def consume() -> Iterator[Consume]:
    """Makes consumers of the queue "default", which are closed at the end."""
    consumers: list[Consumer] = []

    def make(broker: Broker, *, prefetch: int = 10) -> Consumer:
        broker.declare_queue("default")
        consumers.append(broker.consume("default", prefetch=prefetch, timeout=IDLE_TIMEOUT_MS))
        return consumers[-1]

    yield make
    for consumer in consumers:
        consumer.close()


def send(broker: Broker, count: int) -> list[Message[None]]:
    broker.declare_queue("default")
    if "task" not in broker.actors:
        broker.actors["task"] = None  # type: ignore[assignment]  # known, and never called here
    return [broker.enqueue(Message("default", "task", (number,), {}, {})) for number in range(count)]


def take(consumer: Consumer, count: int) -> list[MessageProxy]:
    """The next ``count`` deliveries."""
    taken: list[MessageProxy] = []

    def enough() -> bool:
        delivery = next(consumer)
        if delivery is not None:
            taken.append(delivery)
        return len(taken) == count

    wait_until(enough, deadline_s=DEADLINE_S, what=f"{count} deliveries")
    return taken


def ids(messages: list[MessageProxy] | list[Message[None]]) -> list[str]:
    return sorted(message.message_id for message in messages)


def test_a_consumer_yields_every_message_once_and_then_none(broker: Broker, consume: Consume) -> None:
    sent = send(broker, 5)
    consumer = consume(broker)
    deliveries = take(consumer, 5)
    assert ids(deliveries) == ids(sent)
    later = send(broker, 1)
    assert ids(take(consumer, 1)) == ids(later)
    assert next(consumer) is None


def test_an_idle_consumer_answers_none(broker: Broker, consume: Consume) -> None:
    assert next(consume(broker)) is None


def test_no_more_than_prefetch_deliveries_are_outstanding(broker: Broker, consume: Consume) -> None:
    send(broker, 5)
    consumer = consume(broker, prefetch=2)
    first, second = take(consumer, 2)
    assert next(consumer) is None
    consumer.ack(second)
    (third,) = take(consumer, 1)
    assert next(consumer) is None
    consumer.nack(first)
    consumer.ack(third)
    take(consumer, 2)
    assert next(consumer) is None


def test_acks_and_nacks_may_come_in_any_order(broker: Broker, consume: Consume) -> None:
    send(broker, 6)
    consumer = consume(broker)
    deliveries = take(consumer, 6)
    for index, delivery in enumerate(reversed(deliveries)):
        (consumer.ack if index % 2 else consumer.nack)(delivery)
    with ThreadPoolExecutor(1) as thread:
        join = thread.submit(broker.join, "default", timeout=JOIN_TIMEOUT_MS)

        def idle_and_joined() -> bool:
            assert next(consumer) is None  # which also commits what is finished meanwhile
            return join.done()

        wait_until(idle_and_joined, deadline_s=DEADLINE_S + 10, what="every delivery to be complete")
    join.result()


# What follows is more than the stub can do: its messages are gone once they were taken.


@pytest.fixture
def kafka_broker(kafka_backend: KafkaBackend) -> Iterator[KafkaBroker]:
    broker = kafka_backend.broker()
    yield broker
    broker.close()


@pytest.mark.real_kafka(reason="keep commit metadata")
def test_the_next_consumer_gets_exactly_what_the_last_one_did_not_finish(
    kafka_broker: Broker, consume: Consume
) -> None:
    send(kafka_broker, 6)
    first = consume(kafka_broker)
    deliveries = take(first, 6)
    for done in deliveries[1::2]:
        first.ack(done)
    first.requeue(deliveries[:1])
    first.close()
    assert ids(take(consume(kafka_broker), 3)) == ids(deliveries[0::2])


def test_a_nacked_message_does_not_come_back_once_its_dead_letter_is_in_kafka(
    kafka_broker: KafkaBroker, consume: Consume
) -> None:
    send(kafka_broker, 1)
    first = consume(kafka_broker)
    first.nack(*take(first, 1))
    assert kafka_broker.parts.completer.drain(JOIN_TIMEOUT_MS / 1000)
    first.close()
    kafka_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    sent_later = send(kafka_broker, 1)
    assert ids(take(consume(kafka_broker), 1)) == ids(sent_later)


def test_a_second_ack_of_one_delivery_changes_nothing(kafka_broker: Broker, consume: Consume) -> None:
    send(kafka_broker, 3)
    consumer = consume(kafka_broker, prefetch=1)
    (first,) = take(consumer, 1)
    consumer.ack(first)
    consumer.ack(first)
    take(consumer, 1)
    assert next(consumer) is None


def test_an_ack_for_a_consumer_that_is_gone_is_ignored(kafka_broker: Broker, consume: Consume) -> None:
    send(kafka_broker, 1)
    first = consume(kafka_broker)
    (late,) = take(first, 1)
    first.close()
    second = consume(kafka_broker)
    (again,) = take(second, 1)
    second.ack(late)
    second.close()  # which commits what is finished
    third = consume(kafka_broker)
    (once_more,) = take(third, 1)
    assert late.message_id == again.message_id == once_more.message_id
    third.ack(once_more)
    third.close()
    kafka_broker.join("default", timeout=JOIN_TIMEOUT_MS)


def test_a_hot_partition_leaves_the_others_their_turn(kafka_broker: KafkaBroker, consume: Consume) -> None:
    hot, cold = 3_000, 20
    send(kafka_broker, 0)
    topic = kafka_broker.parts.topics.queue("default")
    backlog = [record(topic, 0, padding="x" * 100) for _ in range(hot)]
    backlog += [record(topic, partition) for partition in (1, 2, 3) for _ in range(cold)]
    assert not kafka_broker.parts.publisher.publish(backlog)
    consumer = consume(kafka_broker, prefetch=4)
    turns: Counter[int] = Counter()
    while min(turns[partition] for partition in (1, 2, 3)) < cold:
        (delivery,) = take(consumer, 1)
        assert isinstance(delivery, Delivery)
        turns[delivery.origin.partition] += 1
        consumer.ack(delivery)
    # Side by side once all are read; the hot one may have been the first to be.
    assert turns[0] < hot / 2, f"{turns[0]} records of the hot partition went before the last of the others"


def record(topic: str, partition: int, **kwargs: object) -> Record:
    return Record(topic, Message("default", "task", (), kwargs, {}).encode(), partition=partition)


@pytest.mark.real_kafka(reason="keep commit metadata")
def test_a_delivery_that_runs_for_long_is_committed_as_incomplete(
    kafka_backend: KafkaBackend, consume: Consume
) -> None:
    broker = kafka_backend.broker(partitions=1)
    consumer = consume(broker)
    send(broker, 1)
    take(consumer, 1)

    def is_committed() -> bool:
        assert next(consumer) is None
        (state,) = broker.queues("default")
        return (state.waiting, state.incomplete) == (0, 1)

    wait_until(is_committed, deadline_s=DEADLINE_S, what="the commit")
    broker.close()
