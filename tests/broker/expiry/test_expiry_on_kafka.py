"""Expired messages on a Kafka: the events of the history, and the fast path of a worker with threads."""

from __future__ import annotations

import dramatiq

from tests.broker.conftest import MakeBroker, StartWorker
from tests.waiting import wait_until

DEADLINE_S = 60.0


def test_the_history_tells_that_waiting_and_delayed_messages_have_expired(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker()
    ran: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", expires_in=1)
    def work(number: int) -> None:
        ran.append(number)

    # Given messages that expire before the worker runs them, and two that do not
    expired = {
        work.send(0).message_id,
        work.send_with_options(args=(0,), delay=500, expires_at=1).message_id,
        work.send_with_options(args=(0,), partition_key="a key").message_id,
    }
    work.send_with_options(args=(1,), expires_in=None)
    work.send_with_options(args=(2,), delay=1_000, expires_in=600_000)
    start_worker(broker, worker_threads=2)
    wait_until(lambda: len(ran) == 2, deadline_s=DEADLINE_S, what="the two messages that do not expire")
    broker.join("work", timeout=30_000)
    assert sorted(ran) == [1, 2]
    assert list(broker.dead_letters("work")) == []
    wait_until(
        lambda: {e.message_id for e in broker.history() if e.kind == "expired"} == expired,
        deadline_s=DEADLINE_S,
        what="the events of the three",
    )
