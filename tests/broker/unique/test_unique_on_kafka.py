"""Unique messages on a Kafka: the events of the history, and the marks in the lanes topic."""

from __future__ import annotations

import threading

import dramatiq
import pytest

from tests.broker.conftest import MakeBroker, StartWorker
from tests.waiting import wait_until

DEADLINE_S = 60.0


@pytest.mark.real_kafka("its ends of partitions are too low after a batch")
@pytest.mark.parametrize("unique", ["until_started", "until_done"])
def test_a_hundred_messages_of_one_key_behind_a_backlog_run_once_and_the_history_names_the_others(
    make_broker: MakeBroker, start_worker: StartWorker, unique: str
) -> None:
    broker = make_broker()
    ran: list[int] = []
    done = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def plain() -> None: ...

    @dramatiq.actor(broker=broker, queue_name="work", unique_by="key", unique=unique)
    def work(key: str, number: int) -> None:
        ran.append(number)
        if number:
            done.set()

    broker.enqueue_many([plain.message() for _ in range(500)])
    duplicates = set()
    for number in range(100):
        sent = work.send("a", 0)
        if number:
            duplicates.add(sent.message_id)
        broker.enqueue_many([plain.message() for _ in range(5)])
    start_worker(broker, worker_threads=4)
    broker.join("work", timeout=60_000)
    assert ran == [0]
    wait_until(
        lambda: {event.message_id for event in broker.history() if event.kind == "duplicate"} == duplicates,
        deadline_s=DEADLINE_S,
        what="the events of the duplicates",
    )
    # The key is free again
    work.send("a", 1)
    assert done.wait(DEADLINE_S)
