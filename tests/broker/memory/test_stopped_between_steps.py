"""A worker that stops between two of its steps, and the offsets that it leaves incomplete."""

from __future__ import annotations

import dramatiq
import pytest

from broker import KafkaBroker
from broker.testing import Kit

QUEUE = "work"
MESSAGES = 6


def test_a_worker_that_stops_while_a_retry_fails_leaves_no_requeue_record_of_the_messages_behind_it() -> None:
    broker = KafkaBroker(partitions=1)

    @dramatiq.actor(
        broker=broker, queue_name=QUEUE, key_order="ordered", max_retries=1_000, max_backoff=1_000
    )
    def task(number: int) -> None:
        raise ConnectionError("the service is away")

    with Kit(broker).use() as worker:
        # Given messages of one key, of which the first has failed: all of them wait in the lanes topic
        for number in range(MESSAGES):
            task.send_with_options(args=(number,), partition_key="a key")
        worker.drain(raise_errors=False)
        assert broker.count(QUEUE) == MESSAGES

        # When all of them return to the queue, the first fails again, and the worker stops
        worker.advance(seconds=1)
        for _ in range(100):
            if worker.worker.step():
                break
            worker.advance(seconds=0.01)
        else:
            pytest.fail("no retry has run")
        assert broker.count(QUEUE) > MESSAGES, "the requeue records count until they are committed"
        worker.worker.stop()

        # Then each message counts once
        assert broker.count(QUEUE) == MESSAGES
