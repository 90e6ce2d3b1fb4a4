"""What follows from a message holds its delivery until Kafka has it: nothing is acked and gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, Worker, group, pipeline
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import StubBackend

from broker import EnqueueFailed, KafkaBroker
from dev.server import Server
from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.conftest import WORKER_THREADS, WORKER_TIMEOUT_MS
from tests.waiting import wait_until

DEADLINE_S = 60
JOIN_TIMEOUT_MS = 60_000
#: How long a publish lasts that a frozen Kafka does not acknowledge. A late acknowledgement repeats it.
PUBLISH_TIMEOUT_MS = 3_000
TOO_LARGE = "a result of 2,000,000 characters is handed on"
HELD = "are held until their outboxes and follow-ups are done"


class Tasks:
    """Actors on the queue "default" whose follow-ups go to the queue "later", or are delayed."""

    def __init__(self, broker: KafkaBroker) -> None:
        self.broker = broker
        self.runs: list[str] = []
        self.follow_ups: list[str] = []
        self.before_end: Callable[[], object] = lambda: None

        @dramatiq.actor(broker=broker, max_retries=0)
        def task(name: str, fail: bool) -> str:
            self.runs.append(name)
            self.before_end()
            if fail and not (name == "retry" and self.runs.count(name) > 1):
                raise RuntimeError("asked to")
            if name == "retry":
                self.follow_ups.append(name)
            return "x" * 2_000_000 if name == TOO_LARGE else name

        @dramatiq.actor(broker=broker, queue_name="later")
        def follow_up(name: Any, *_: object) -> None:
            self.follow_ups.append(name["args"][0] if isinstance(name, dict) else name)

        self._task, self._follow_up = task, follow_up

    def can_follow_up(self) -> bool:
        """Whether the topic of the follow-ups takes a record, which another follow-up then is."""
        try:
            self._follow_up.send("an attempt")
        except EnqueueFailed:
            return False
        return True

    def send(self, name: str) -> None:
        """Send the message that ``name`` follows from."""
        message = self._task.message_with_options(
            args=(name, name in ("retry", "error callback", "exhausted callback")), **OPTIONS.get(name, {})
        )
        if name == "pipeline step":
            pipeline([message, self._follow_up.message_with_options()], broker=self.broker).run()
        elif name == "group callback":
            together = group([message], broker=self.broker)
            together.add_completion_callback(self._follow_up.message(name))
            together.run()
        else:
            self.broker.enqueue(message)


OPTIONS: dict[str, dict[str, Any]] = {
    "retry": {"max_retries": 1, "min_backoff": 1},
    "success callback": {"on_success": "follow_up"},
    "error callback": {"on_failure": "follow_up"},
    "exhausted callback": {"on_retry_exhausted": "follow_up"},
}
FOLLOW_UPS = [*OPTIONS, "pipeline step", "group callback"]


@pytest.fixture(scope="module")
def tasks(kafka_backend: KafkaBackend) -> Iterator[Tasks]:
    """Tasks that a worker runs on the stack's Kafka, whose topics can be made to refuse records."""
    broker = kafka_backend.broker(GroupCallbacks(StubBackend()))
    tasks = Tasks(broker)
    broker.parts.topics.ensure(
        [*broker.parts.topics.of_worker("default"), *broker.parts.topics.of_worker("later")]
    )
    worker = Worker(broker, worker_timeout=WORKER_TIMEOUT_MS, worker_threads=WORKER_THREADS)
    worker.start()
    yield tasks
    worker.stop()
    broker.close()


def let_later_refuse_follow_ups(tasks: Tasks, backend: KafkaBackend) -> None:
    """Return once the topic refuses them: its leader hears of a policy after the answer to the change.

    A queue's records have no key, so a topic that is compacted refuses them; every other one does not.
    """
    backend.set_cleanup_policy(tasks.broker.parts.topics.queue("later"), "compact")
    wait_until(lambda: not tasks.can_follow_up(), deadline_s=DEADLINE_S, what="the topic to refuse records")


@pytest.mark.real_kafka(reason="refuse records without a key in a compacted topic")
@pytest.mark.parametrize("name", [name for name in FOLLOW_UPS if name != "retry"])
def test_a_delivery_is_held_while_a_topic_refuses_what_follows_from_it(
    tasks: Tasks, name: str, kafka_backend: KafkaBackend, caplog: pytest.LogCaptureFixture
) -> None:
    broker = tasks.broker
    let_later_refuse_follow_ups(tasks, kafka_backend)
    tasks.send(name)
    wait_until(lambda: HELD in caplog.text, deadline_s=DEADLINE_S, what="the delivery to be held")
    beside = f"beside the {name}"
    tasks.send(beside)
    wait_until(
        lambda: beside in tasks.runs and broker.count("default") == 1,
        deadline_s=DEADLINE_S,
        what="all but the held delivery to be committed",
    )
    assert name not in tasks.follow_ups

    kafka_backend.set_cleanup_policy(broker.parts.topics.queue("later"), "delete")
    for queue_name in ("default", "later"):
        broker.join(queue_name, timeout=JOIN_TIMEOUT_MS)
    assert tasks.follow_ups.count(name) == 1
    assert tasks.runs.count(name) == 1


def test_everything_that_follows_while_kafka_does_not_answer_is_published_when_it_does(
    server_backend: KafkaBackend, kafka_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    broker = server_backend.broker(
        GroupCallbacks(StubBackend()),
        bootstrap_servers=kafka_server.address,
        enqueue_timeout_ms=PUBLISH_TIMEOUT_MS,
    )
    broker.parts.topics.ensure(
        [*broker.parts.topics.of_worker("default"), *broker.parts.topics.of_worker("later")]
    )
    tasks = Tasks(broker)
    all_run, gate = threading.Barrier(len(FOLLOW_UPS) + 1), threading.Event()

    def wait_for_the_pause() -> None:
        if not gate.is_set():
            all_run.wait(DEADLINE_S)
            gate.wait(DEADLINE_S)

    tasks.before_end = wait_for_the_pause
    worker = Worker(broker, worker_timeout=WORKER_TIMEOUT_MS, worker_threads=len(FOLLOW_UPS))
    worker.start()
    try:
        for name in FOLLOW_UPS:
            tasks.send(name)
        all_run.wait(DEADLINE_S)
        kafka_server.pause()
        gate.set()
        wait_until(lambda: HELD in caplog.text, deadline_s=DEADLINE_S, what="the deliveries to be held")
        assert tasks.follow_ups == []
        kafka_server.resume()
        for queue_name in ("default", "later"):
            broker.join(queue_name, timeout=JOIN_TIMEOUT_MS)
        assert set(tasks.follow_ups) == set(FOLLOW_UPS)
    finally:
        kafka_server.resume()
        worker.stop()
        broker.close()


@pytest.mark.parametrize(
    ("name", "fail", "options"),
    [
        ("an actor that nobody knows is called back", True, {"on_failure": "nobody"}),
        pytest.param(
            TOO_LARGE,
            False,
            {"on_success": "follow_up"},
            marks=pytest.mark.real_kafka(reason="refuse a record of that size"),
        ),
    ],
)
def test_a_message_whose_follow_up_can_never_be_published_becomes_a_dead_letter_and_nothing_else(
    tasks: Tasks, name: str, fail: bool, options: dict[str, Any]
) -> None:
    message: Message[Any] = Message("default", "task", (name, fail), {}, {"max_retries": 5, **options})
    tasks.broker.enqueue(message)
    tasks.broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert tasks.runs.count(name) == 1
    (dead_letter,) = tasks.broker.dead_letters("default", message_id=message.message_id)
    assert dead_letter.message is not None
    assert dead_letter.message.args == (name, fail)
