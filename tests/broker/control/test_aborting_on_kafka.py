"""Aborts on a Kafka, with the threads of a worker and its history."""

from __future__ import annotations

import time
from typing import Any

import dramatiq

from broker import Abort, AbortOutcome
from tests.broker.conftest import MakeBroker, StartWorker
from tests.waiting import wait_until

DEADLINE_S = 60.0


def test_the_outcome_of_an_abort_is_aborted_once_a_worker_has_said_so(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker()
    begun: list[int] = []
    aborted: list[Any] = []

    @dramatiq.actor(broker=broker, queue_name="work", max_retries=3)
    def work(number: int) -> None:
        begun.append(number)
        try:
            while number == 0:
                time.sleep(0.01)
        except Abort as e:
            aborted.append(e)
            raise

    # Given a running task, a message behind it on the queue, and one that is delayed
    running = work.send(0)
    start_worker(broker, worker_threads=1)
    wait_until(lambda: begun == [0], deadline_s=DEADLINE_S, what="the running task")
    waiting = work.send(1)
    delayed = work.send_with_options(args=(2,), delay=1_000)
    last = work.send_with_options(args=(3,), delay=2_000)
    assert broker.abort(waiting.message_id) is AbortOutcome.RECORDED
    assert broker.abort(delayed.message_id) is AbortOutcome.RECORDED
    # When the running one is aborted, too
    assert broker.abort(running.message_id, reason="a test", timeout_s=DEADLINE_S) is AbortOutcome.ABORTED
    # Then only the last one runs
    wait_until(lambda: begun == [0, 3], deadline_s=DEADLINE_S, what=f"the message {last.message_id}")
    broker.join("work", timeout=30_000)
    assert len(aborted) == 1
    assert list(broker.dead_letters("work")) == []
    wait_until(
        lambda: (
            {e.message_id for e in broker.history() if e.kind == "aborted"}
            == {running.message_id, waiting.message_id, delayed.message_id}
        ),
        deadline_s=DEADLINE_S,
        what="the events of the three",
    )
