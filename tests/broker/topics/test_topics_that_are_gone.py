"""A topic that was deleted, or recreated, since this process has used it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import dramatiq
import pytest

from broker import KafkaBroker
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.kafka_python import whole_admin
from tests.broker.topics.foreign_topics import QUEUE, configs_of, create
from tests.waiting import wait_until

pytestmark = pytest.mark.real_kafka("a topic that is away when something is sent to it")

DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = int(DEADLINE_S * 1000)
PARTITIONS = 4
#: An answer within it has waited for no delivery time-out.
ENQUEUE_TIMEOUT_MS = 30_000


@pytest.fixture
def task(make_broker: MakeBroker) -> dramatiq.Actor[[int], None]:
    """An actor whose queue has been sent a message to each of its partitions."""
    broker = make_broker(partitions=PARTITIONS, enqueue_timeout_ms=ENQUEUE_TIMEOUT_MS)

    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def task(number: int) -> None: ...

    broker.enqueue_many([task.message(number) for number in range(100)])
    return task


def broker_of(task: dramatiq.Actor[[int], None]) -> KafkaBroker:
    assert isinstance(task.broker, KafkaBroker)
    return task.broker


def delete(broker: KafkaBroker, topic: str) -> None:
    with whole_admin(broker.parts.clients) as admin:
        admin.delete_topics([topic])
        wait_until(
            lambda: all(found["error_code"] for found in admin.describe_topics([topic])),
            deadline_s=DEADLINE_S,
            what="the topic to be gone",
        )


def test_a_send_to_a_deleted_topic_creates_it_again_and_says_so(
    task: dramatiq.Actor[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    broker = broker_of(task)
    topic = broker.parts.topics.queue(QUEUE)
    delete(broker, topic)
    with caplog.at_level(logging.ERROR, logger="broker"):
        for number in range(5):
            task.send(number)
    assert broker.count(QUEUE) == 5
    (line,) = [record.getMessage() for record in caplog.records if "were gone" in record.getMessage()]
    assert repr(topic) in line


def test_a_count_says_that_the_topic_of_its_queue_is_gone(
    task: dramatiq.Actor[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    broker = broker_of(task)
    assert broker.count(QUEUE) == 100
    delete(broker, broker.parts.topics.queue(QUEUE))
    with caplog.at_level(logging.WARNING, logger="broker"):
        assert broker.count(QUEUE) == 0
    (line,) = [record.getMessage() for record in caplog.records if "is gone" in record.getMessage()]
    assert repr(broker.parts.topics.queue(QUEUE)) in line


def test_a_count_does_not_go_on_asking_about_a_delayed_topic_that_is_gone(
    task: dramatiq.Actor[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "broker.delays.view.LOOK_UP_INTERVAL_S", 1e9
    )  # it is not looked up for any other reason
    broker = broker_of(task)
    assert broker.count(QUEUE) == 100
    delete(broker, broker.parts.topics.delayed)
    assert broker.count(QUEUE) == 100


def test_many_threads_that_send_to_a_deleted_topic_all_succeed(task: dramatiq.Actor[[int], None]) -> None:
    broker = broker_of(task)
    delete(broker, broker.parts.topics.queue(QUEUE))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(task.send, range(40)))
    assert broker.count(QUEUE) == 40


@pytest.mark.parametrize("partitions", [1, PARTITIONS, 2 * PARTITIONS])
def test_a_send_to_a_recreated_topic_arrives_whatever_its_partitions(
    task: dramatiq.Actor[[int], None], partitions: int
) -> None:
    broker = broker_of(task)
    topic = broker.parts.topics.queue(QUEUE)
    delete(broker, topic)
    create(broker, topic, {}, partitions=partitions)
    for number in range(2 * PARTITIONS):
        task.send(number)
        task.send_with_options(args=(number,), partition_key=f"user-{number}")
    assert broker.count(QUEUE) == 4 * PARTITIONS


def test_many_messages_for_a_recreated_topic_with_fewer_partitions_all_arrive(
    task: dramatiq.Actor[[int], None],
) -> None:
    broker = broker_of(task)
    topic = broker.parts.topics.queue(QUEUE)
    delete(broker, topic)
    create(broker, topic, {}, partitions=1)
    broker.enqueue_many([task.message(number) for number in range(100)])
    assert broker.count(QUEUE) >= 100


def test_a_deleted_delayed_topic_is_created_again_as_one_that_keeps_what_waits(
    task: dramatiq.Actor[[int], None], start_worker: StartWorker
) -> None:
    broker = broker_of(task)
    broker.flush(QUEUE)
    broker.enqueue(task.message(1), delay=60_000)
    delete(broker, broker.parts.topics.delayed)
    broker.enqueue(task.message(2), delay=100)
    assert configs_of(broker, broker.parts.topics.delayed)["cleanup.policy"] == "compact"
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)


def test_a_message_that_follows_from_another_creates_its_deleted_topic_again(
    task: dramatiq.Actor[[int], None], start_worker: StartWorker
) -> None:
    broker = broker_of(task)
    broker.flush(QUEUE)
    done: list[str] = []

    @dramatiq.actor(broker=broker, queue_name="later")
    def second(_: object) -> None:
        done.append("second")

    @dramatiq.actor(broker=broker, queue_name="sooner")
    def first() -> None: ...

    start_worker(broker, queues={"sooner"})
    second.send(None)
    dramatiq.pipeline([first.message(), second.message_with_options()], broker=broker).run()
    broker.join("sooner", timeout=JOIN_TIMEOUT_MS)
    delete(broker, broker.parts.topics.queue("later"))
    dramatiq.pipeline([first.message(), second.message_with_options()], broker=broker).run()
    broker.join("sooner", timeout=JOIN_TIMEOUT_MS)
    assert broker.count("later") == 1
