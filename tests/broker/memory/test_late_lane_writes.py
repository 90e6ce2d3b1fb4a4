"""Entries of the lanes topic by a worker that does not know yet that it has lost its partition."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
import pytest

from broker import KafkaBroker
from broker.testing import Kit

QUEUE = "work"
BACKOFF_MS = 1_000
#: Longer than the check for late entries needs.
A_WHILE_S = 30


def declare(broker: KafkaBroker, run: Callable[[], None]) -> dramatiq.Actor[[], None]:
    options = {"max_backoff": BACKOFF_MS, "min_backoff": BACKOFF_MS, "max_retries": 5}
    return dramatiq.actor(
        run, actor_name="run", broker=broker, queue_name=QUEUE, key_order="ordered", **options
    )  # type: ignore[call-overload]


@pytest.fixture
def third_process(worker: Kit) -> Kit:
    return Kit(KafkaBroker(partitions=1), worker.cluster, worker.clock)


def test_a_message_that_is_done_does_not_wait_again_when_its_former_owner_retries_it_late(
    worker: Kit, other_process: Kit, third_process: Kit
) -> None:
    runs: list[str] = []

    def run_in_former_owner() -> None:
        # While the task runs, its worker is thrown out, and another one runs it to its end.
        worker.cluster.expel(f"dramatiq.{QUEUE}")
        other_process.drain()
        raise ConnectionError("the service is away")

    task = declare(worker.broker, run_in_former_owner)
    declare(other_process.broker, lambda: runs.append("new owner"))
    task.send_with_options(partition_key="a key")
    while not worker.worker.step():  # it ends with the write that the message waits for its retry
        worker.advance(seconds=0.01)
    worker.worker.kill()
    assert runs == ["new owner"]
    assert other_process.broker.count(QUEUE) == 1

    for _ in range(A_WHILE_S):
        other_process.advance(seconds=1)
        other_process.drain()
    assert other_process.broker.count(QUEUE) == 0

    other_process.worker.kill()
    with third_process.use():
        declare(third_process.broker, lambda: runs.append("third owner"))
        third_process.advance(seconds=A_WHILE_S)
        third_process.drain()
        assert third_process.broker.count(QUEUE) == 0
    assert runs == ["new owner"]
