"""A queue's first message, in a namespace that nothing of it exists in yet."""

from __future__ import annotations

import dramatiq

from tests.broker.conftest import MakeBroker

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
