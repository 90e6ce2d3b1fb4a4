"""Topics with settings that lose messages are refused, until they are corrected."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable

import dramatiq
import pytest
from dramatiq.errors import BrokerConnectionError

from broker import EnqueueFailed, KafkaBroker, PermanentError, TopicMisconfigured
from broker.kafka.clients import Clients
from broker.kafka.topics import Topics
from broker.worker import policy_watch
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.topics.foreign_topics import QUEUE, configs_of, configure, create
from tests.waiting import wait_until

DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = int(DEADLINE_S * 1000)
COUNT = 15


def declare(
    broker: KafkaBroker, run: Callable[[int], object] = lambda number: None
) -> dramatiq.Actor[[int], None]:
    @dramatiq.actor(broker=broker, queue_name=QUEUE, max_retries=0, key_order="ordered")
    def task(number: int) -> None:
        run(number)

    return task


def correction(topic: str, setting: str) -> str:
    """A pattern of the command that gives a topic a setting."""
    return f"kafka-configs.sh --bootstrap-server .* --alter .* --entity-name {topic} .*{setting}"


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_send_to_a_compacted_queue_says_how_to_mend_it_and_succeeds_when_that_was_done(
    make_broker: MakeBroker, policy: str
) -> None:
    broker = make_broker()
    task = declare(broker)
    topic = broker.parts.topics.queue(QUEUE)
    create(broker, topic, {"cleanup.policy": policy})
    for options in ({}, {"partition_key": "user-7"}, {"delay": 60_000}):
        with pytest.raises(EnqueueFailed, match=correction(topic, "cleanup.policy=delete")) as refused:
            task.send_with_options(args=(1,), **options)
        assert f"{topic!r} has cleanup.policy={policy}" in str(refused.value)
        assert "check that Kafka is reachable" not in str(refused.value)
        (reason,) = refused.value.failures.values()
        assert isinstance(reason, TopicMisconfigured)
        assert isinstance(reason, BrokerConnectionError)
        assert reason.topic == topic
    assert broker.count(QUEUE) == 0

    configure(broker, topic, {"cleanup.policy": "delete"})
    wait_until(lambda: sent(task), deadline_s=DEADLINE_S, what="a send to succeed")
    assert broker.count(QUEUE) == 1


def sent(task: dramatiq.Actor[[int], None]) -> bool:
    try:
        task.send(1)
    except EnqueueFailed:
        return False
    return True


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_delayed_message_is_not_put_where_kafka_deletes_it_and_others_are_sent(
    make_broker: MakeBroker, policy: str
) -> None:
    broker = make_broker()
    task = declare(broker)
    create(broker, broker.parts.topics.delayed, {"cleanup.policy": policy})
    delayed, undelayed = task.message(1), task.message(2)
    with pytest.raises(
        EnqueueFailed, match=correction(broker.parts.topics.delayed, "cleanup.policy=compact")
    ):
        broker.enqueue(delayed, delay=1_000)
    broker.enqueue(undelayed)
    assert broker.count(QUEUE) == 1  # who only reads is not refused


@pytest.mark.parametrize(
    ("name_of", "policy", "remedy"),
    [
        (Topics.lanes, "delete", "compact"),
        pytest.param(
            Topics.queue,
            "compact",
            "delete",
            marks=pytest.mark.real_kafka("a cleanup policy"),
        ),
        (lambda topics, queue: topics.delayed, "compact,delete", "compact"),
    ],
    ids=["lanes", "queue", "delayed"],
)
def test_a_worker_says_so_when_a_topic_loses_messages_since_it_was_started(
    make_broker: MakeBroker,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name_of: Callable[[Topics, str], str],
    policy: str,
    remedy: str,
) -> None:
    # Given a worker that has used all of its topics
    monkeypatch.setattr(policy_watch, "CHECK_INTERVAL_S", 0.2)
    broker, failed = make_broker(), threading.Event()

    @dramatiq.actor(
        broker=broker, queue_name=QUEUE, max_retries=9, min_backoff=50, max_backoff=50, key_order="ordered"
    )
    def task() -> None:
        if not failed.is_set():
            failed.set()
            raise ConnectionError("its retry waits in its lane")

    start_worker(broker)
    task.send_with_options(partition_key="user-7")
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    topic = name_of(broker.parts.topics, QUEUE)

    # When an operator makes one lose messages
    configure(broker, topic, {"cleanup.policy": policy})

    # Then an error names it, the setting and the command that corrects it
    wait_until(lambda: errors_about(caplog, topic), deadline_s=DEADLINE_S, what="an error")
    line = errors_about(caplog, topic)[0]
    assert f"{topic!r} has cleanup.policy={policy}" in line
    assert re.search(correction(topic, f"cleanup.policy={remedy}"), line)


def errors_about(caplog: pytest.LogCaptureFixture, topic: str) -> list[str]:
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    return [text for record in records if repr(topic) in (text := record.getMessage())]


@pytest.mark.real_kafka("a topic's max.message.bytes")
def test_a_delayed_topic_that_takes_less_than_the_queue_is_refused(make_broker: MakeBroker) -> None:
    broker = make_broker()
    task = declare(broker)
    create(broker, broker.parts.topics.delayed, {"cleanup.policy": "compact", "max.message.bytes": "1000"})
    with pytest.raises(
        EnqueueFailed, match=correction(broker.parts.topics.delayed, "max.message.bytes=1114124")
    ):
        task.send_with_options(args=(1,), delay=1_000)


BAD: dict[str, tuple[Callable[[KafkaBroker], str], dict[str, str], dict[str, str]]] = {
    "a compacted queue": (
        lambda broker: broker.parts.topics.queue(QUEUE),
        {"cleanup.policy": "compact"},
        {"cleanup.policy": "delete"},
    ),
    "compacted dead letters": (
        lambda broker: broker.parts.topics.dead_letters(QUEUE),
        {"cleanup.policy": "compact,delete"},
        {"cleanup.policy": "delete"},
    ),
    "lanes that are deleted": (
        lambda broker: broker.parts.topics.lanes(QUEUE),
        {"cleanup.policy": "delete"},
        {"cleanup.policy": "compact"},
    ),
    "delayed messages that are deleted": (
        lambda broker: broker.parts.topics.delayed,
        {"cleanup.policy": "compact,delete"},
        {"cleanup.policy": "compact"},
    ),
    "dead letters that hardly fit": (
        lambda broker: broker.parts.topics.dead_letters(QUEUE),
        {"max.message.bytes": "100"},
        {"max.message.bytes": "4194352"},
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.real_kafka("a topic's max.message.bytes")] * ("hardly" in name))
        for name in BAD
    ],
)
def test_a_worker_leaves_a_queue_alone_until_its_topics_are_mended(
    make_broker: MakeBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    topic_of, bad, good = BAD[name]
    seen: list[int] = []
    sender = make_broker()
    task = declare(sender)
    create(sender, sender.parts.topics.queue(QUEUE), {"cleanup.policy": "delete"})
    sender.enqueue_many([task.message_with_options(args=(n,), partition_key="user-7") for n in range(COUNT)])
    topic = topic_of(sender)
    if topic == sender.parts.topics.queue(QUEUE):
        configure(sender, topic, bad)
    else:
        create(sender, topic, bad)
    worker = make_broker(namespace=sender.parts.topics.queue(""))
    declare(worker, seen.append)
    other: list[int] = []
    if topic != sender.parts.topics.delayed:

        @dramatiq.actor(broker=worker, queue_name="other")
        def task_of_another_queue() -> None:
            other.append(1)

    start_worker(worker)

    def said() -> list[str]:
        lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        return [
            line for line in lines if f"{topic!r} has {next(iter(bad))}" in line and "kafka-configs" in line
        ]

    wait_until(said, deadline_s=DEADLINE_S, what="the worker to say what is wrong")
    if topic != sender.parts.topics.delayed:
        task_of_another_queue.send()
        wait_until(lambda: other, deadline_s=DEADLINE_S, what="another queue's message to run")
    assert seen == []
    assert sender.count(QUEUE) == COUNT

    configure(sender, topic, good)
    worker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert seen == list(range(COUNT))
    assert len([line for line in said() if line.startswith("Consumer encountered")]) == 1


def test_a_redrive_from_compacted_dead_letters_is_refused_and_reading_them_is_not(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    def fail(number: int) -> None:
        raise PermanentError("no such order")

    broker = make_broker()
    topic = broker.parts.topics.dead_letters(QUEUE)
    create(broker, topic, {"cleanup.policy": "delete"})
    message = declare(broker, fail).send(1)
    start_worker(broker)
    wait_until(lambda: list(broker.dead_letters(QUEUE)), deadline_s=DEADLINE_S, what="the dead letter")
    configure(broker, topic, {"cleanup.policy": "compact"})

    operator = make_broker(namespace=broker.parts.topics.queue(""))
    operator.declare_queue(QUEUE)
    with pytest.raises(TopicMisconfigured, match=correction(topic, "cleanup.policy=delete")):
        operator.redrive(QUEUE, dry_run=False, reason="repaired")
    with pytest.raises(TopicMisconfigured, match=correction(topic, "cleanup.policy=delete")):
        operator.discard(QUEUE, dry_run=False, reason="repaired")
    assert operator.redrive(QUEUE).to_send == 1
    assert [
        dead_letter.message and dead_letter.message.message_id for dead_letter in operator.dead_letters(QUEUE)
    ] == [message.message_id]


def test_topics_are_looked_at_once_for_any_number_of_sends(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []
    connect = Clients.admin
    broker = make_broker()
    task = declare(broker)

    def counting(self: Clients, **settings: object) -> object:
        if self is broker.parts.clients:  # a worker of another test may look at its topics meanwhile
            connected.append(threading.current_thread().name)
        return connect(self, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Clients, "admin", counting)
    for number in range(20):
        task.send_with_options(args=(number,), delay=60_000)
        task.send_with_options(args=(number,), partition_key="user-7")
    assert len(connected) == 1, connected


@pytest.mark.real_kafka("a topic's max.message.bytes")
def test_what_is_created_beside_a_queue_takes_what_the_queue_takes(make_broker: MakeBroker) -> None:
    broker = make_broker()
    create(broker, broker.parts.topics.queue(QUEUE), {"max.message.bytes": "9000000"})
    broker.parts.topics.ensure(broker.parts.topics.of_worker(QUEUE))
    for topic in (broker.parts.topics.delayed, broker.parts.topics.dead_letters(QUEUE)):
        assert int(configs_of(broker, topic)["max.message.bytes"]) > 9_000_000
