"""Several messages of a key run at once in the threads of a worker, and no more than its limit says."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import Any

import dramatiq
import pytest

from tests.broker.conftest import MakeBroker, StartWorker

DEADLINE_S = 60.0
LIMIT = 3


def test_as_many_messages_of_a_key_run_at_once_as_its_limit_says(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker()
    lock = threading.Lock()
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    order: defaultdict[str, list[int]] = defaultdict(list)
    together = {key: threading.Barrier(LIMIT) for key in ("a", "b")}

    @dramatiq.actor(
        broker=broker, queue_name="work", partition_key=lambda key, number: key, key_concurrency=LIMIT
    )
    def work(key: str, number: int) -> None:
        with lock:
            running[key] += 1
            most[key] = max(most[key], running[key])
            order[key].append(number)
        together[key].wait(DEADLINE_S)  # the run ends only beside two others of its key
        with lock:
            running[key] -= 1

    for number in range(150):
        work.send("a", number)
    for number in range(30):
        work.send("b", number)
    start_worker(broker, worker_threads=8)
    broker.join("work", timeout=60_000)
    assert dict(most) == {"a": LIMIT, "b": LIMIT}
    assert {key: sorted(numbers) for key, numbers in order.items()} == {
        "a": list(range(150)),
        "b": list(range(30)),
    }


@pytest.mark.parametrize("limits", [{}, {"key_concurrency": 1}, {"key_concurrency": None}], ids=str)
def test_a_key_without_a_limit_runs_one_message_at_a_time(
    make_broker: MakeBroker, start_worker: StartWorker, limits: dict[str, Any]
) -> None:
    broker = make_broker()
    alone = threading.Lock()
    beside: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", key_concurrency=4)
    def work(number: int) -> None:
        if not alone.acquire(blocking=False):
            beside.append(number)
            return
        threading.Event().wait(0.002)
        alone.release()

    for number in range(50):
        work.send_with_options(args=(number,), partition_key="a", **{"key_concurrency": 1, **limits})
    start_worker(broker, worker_threads=8)
    broker.join("work", timeout=60_000)
    assert beside == []
