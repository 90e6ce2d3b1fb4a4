"""No hook runs for a delivery that no thread has begun: it was moved to another worker, or flushed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.results import ResultMissing, Results
from dramatiq.results.backends import StubBackend

from broker import KafkaBroker
from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.conftest import StartWorker
from tests.broker.contract.signal_log import SignalLog
from tests.waiting import wait_until

DEADLINE_S = 60
JOIN_TIMEOUT_MS = 60_000
MESSAGES = 12


class Process:
    """A broker with one actor, which waits for ``gate``, and the signals and results it leaves."""

    def __init__(self, kafka_backend: KafkaBackend, **settings: Any) -> None:
        self.log, self.results = SignalLog(), StubBackend()
        self.results.results = {}  # all stub backends share theirs
        self.gate, self.started = threading.Event(), threading.Event()
        results = Results(backend=self.results, store_results=True)
        self.broker: KafkaBroker = kafka_backend.broker(results, self.log, partitions=2, **settings)

        @dramatiq.actor(broker=self.broker, max_retries=0)
        def task(number: int) -> int:
            self.started.set()
            assert self.gate.wait(DEADLINE_S)
            return number

        self.task = task

    def signals(self, message: Message[Any]) -> Counter[str]:
        """The signals about a message in a worker."""
        return Counter(name for name in self.log.of(message) if not name.endswith("enqueue"))

    def has_result_of(self, message: Message[Any]) -> bool:
        try:
            message.get_result(backend=self.results)
        except ResultMissing:
            return False
        return True


RUN = Counter(["before_process_message", "after_process_message", "before_ack", "after_ack"])


@pytest.fixture
def make_process(kafka_backend: KafkaBackend) -> Any:
    made: list[Process] = []

    def make(**settings: Any) -> Process:
        made.append(Process(kafka_backend, **settings))
        return made[-1]

    yield make
    for process in made:
        process.gate.set()
        process.broker.close()


# A member of the embedded broker's groups asks for its assignment once a second, and misses that of a round
# which is followed at once by the next one. It joins again seconds later, and may miss that one, too.
@pytest.mark.real_kafka(reason="it misses short generations of a group")
def test_the_hooks_of_a_message_that_moves_run_only_in_the_worker_that_runs_it(
    make_process: Callable[..., Process], start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_process()
    second = make_process(namespace=first.broker.parts.topics.queue(""))
    sent = first.broker.enqueue_many([first.task.message(number) for number in range(MESSAGES)])
    # One partition may be taken over before the other: nothing is dispatched until both are.
    first.broker.consumption_paused = True
    worker = start_worker(first.broker, worker_threads=4, queues={"default"})
    wait_until(
        lambda: len(first.broker.parts.in_flight.assigned()) == 2,
        deadline_s=DEADLINE_S,
        what="both partitions",
    )
    assigned = first.broker.parts.in_flight._assigned_partitions
    wait_until(
        lambda: sum(len(one.buffer) for one in assigned) == MESSAGES and all(one.buffer for one in assigned),
        deadline_s=DEADLINE_S,
        what="the records of both",
    )
    first.broker.consumption_paused = False
    # Of both partitions, in turn: four run, and four are at hand. Else the one that moves may have none.
    wait_until(lambda: worker.work_queue.qsize() == 4, deadline_s=DEADLINE_S, what="four to be at hand")
    second.gate.set()
    start_worker(second.broker, worker_threads=1, queues={"default"})
    assert second.started.wait(DEADLINE_S)
    first.gate.set()
    first.broker.join("default", timeout=JOIN_TIMEOUT_MS)
    wait_until(
        lambda: (
            "was skipped" in caplog.text
            and worker.work_queue.unfinished_tasks == 0
            and all((first.signals(message) + second.signals(message))["after_ack"] for message in sent)
        ),
        deadline_s=DEADLINE_S,
        what="the hooks of all",
    )
    for message in sent:
        for process in (first, second):
            signals = process.signals(message)
            assert signals in (Counter(), RUN)
            assert process.has_result_of(message) == bool(signals)


@pytest.mark.real_kafka(reason="delete records")
def test_no_hook_runs_for_a_flushed_message(
    make_process: Callable[..., Process], start_worker: StartWorker
) -> None:
    process = make_process()
    sent = [process.task.send(number) for number in range(4)]
    worker = start_worker(process.broker, worker_threads=1)
    assert process.started.wait(DEADLINE_S)
    wait_until(lambda: worker.work_queue.qsize() >= 1, deadline_s=DEADLINE_S, what="one to be at hand")
    process.broker.flush("default")
    process.gate.set()
    last = process.task.send(9)
    process.broker.join("default", timeout=JOIN_TIMEOUT_MS)
    wait_until(lambda: process.signals(last) == RUN, deadline_s=DEADLINE_S, what="the last one's hooks")

    [run] = [message for message in sent if process.signals(message)]
    assert process.signals(run) == RUN
    assert [process.has_result_of(message) for message in sent] == [message is run for message in sent]
