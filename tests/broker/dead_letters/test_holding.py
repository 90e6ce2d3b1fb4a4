"""A delivery is not complete before its dead letter is in Kafka and has been told."""

from __future__ import annotations

import threading

import dramatiq
import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from broker import DeadLetter, KafkaBroker, PermanentError, default_middleware
from broker.kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from dev.server import Server
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.dead_letters.samples import QUEUE
from tests.broker.kafka_python import whole_admin
from tests.waiting import wait_until

DEADLINE_S = 90.0
MESSAGES = 300


def declare(broker: KafkaBroker) -> dramatiq.Actor[[], None]:
    @dramatiq.actor(broker=broker)
    def task() -> None:
        raise PermanentError("no such ad")

    return task


def test_a_hook_that_fails_is_called_again_until_it_succeeds(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    calls: list[DeadLetter] = []
    threads: set[str] = set()
    healthy = threading.Event()

    def told(dead_letter: DeadLetter) -> None:
        in_kafka = [each.message for each in broker.dead_letters(QUEUE)]
        assert dead_letter.message in in_kafka
        calls.append(dead_letter)
        threads.add(threading.current_thread().name)
        if not healthy.is_set():
            raise ConnectionError("the database is away")

    broker = make_broker(middleware=default_middleware(on_dead_letter=told))
    task = declare(broker)
    start_worker(broker)
    task.send()
    wait_until(lambda: len(calls) >= 3, deadline_s=DEADLINE_S, what="three calls")
    assert broker.count(QUEUE) == 1

    healthy.set()
    broker.join(QUEUE, timeout=int(DEADLINE_S * 1000))
    assert len({dead_letter.origin for dead_letter in calls}) == 1
    assert len(list(broker.dead_letters(QUEUE))) == 1
    assert not any("ConsumerThread" in name for name in threads)


def test_what_a_stopped_worker_could_not_tell_is_told_by_the_next(
    make_broker: MakeBroker, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.worker.shutdown.SETTLE_TIMEOUT_S", 0.5)
    told: list[DeadLetter] = []

    def refuse(dead_letter: DeadLetter) -> None:
        raise ConnectionError("the database is away")

    first = make_broker(middleware=default_middleware(on_dead_letter=refuse))
    namespace = first.parts.topics.queue("")
    sent = declare(first).send()
    worker = start_worker(first)
    wait_until(lambda: list(first.dead_letters(QUEUE)), deadline_s=DEADLINE_S, what="the dead letter")
    worker.stop()
    first.parts.completer._waiting.clear()  # they are the next worker's now; closing need not wait for them

    second = make_broker(namespace=namespace, middleware=default_middleware(on_dead_letter=told.append))
    declare(second)
    start_worker(second)
    wait_until(lambda: told, deadline_s=DEADLINE_S, what="the hook")
    second.join(QUEUE, timeout=int(DEADLINE_S * 1000))
    assert {dead_letter.message.message_id for dead_letter in told if dead_letter.message} == {
        sent.message_id
    }


def test_kafka_gone_while_messages_are_given_up_loses_none(
    kafka_server: Server, make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    started = threading.Event()
    broker = make_broker(bootstrap_servers=kafka_server.address, enqueue_timeout_ms=3_000)
    broker.parts.topics.ensure(broker.parts.topics.of_worker(QUEUE))

    @dramatiq.actor(broker=broker)
    def task() -> None:
        started.set()
        raise PermanentError("no such ad")

    sent = {message.message_id for message in broker.enqueue_many([task.message() for _ in range(MESSAGES)])}
    worker = start_worker(broker)
    assert started.wait(DEADLINE_S)
    kafka_server.pause()
    wait_until(
        lambda: len(broker.parts.completer._waiting) > 0,
        deadline_s=DEADLINE_S,
        what="dead letters that are held",
    )
    kafka_server.resume()
    broker.join(QUEUE, timeout=int(DEADLINE_S * 1000))
    assert {
        dead_letter.message.message_id for dead_letter in broker.dead_letters(QUEUE) if dead_letter.message
    } == sent
    worker.stop()  # while its Kafka is there


@pytest.mark.real_kafka("a topic's max.message.bytes")
def test_a_dead_letter_topic_that_takes_nothing_holds_the_queue_and_loses_none(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    told: list[DeadLetter] = []
    broker = make_broker(middleware=default_middleware(on_dead_letter=told.append))
    task = declare(broker)
    topic = broker.parts.topics.dead_letters(QUEUE)
    sent = {message.message_id for message in broker.enqueue_many([task.message() for _ in range(MESSAGES)])}
    broker.parts.topics.ensure([topic])
    configure(broker, topic, {"max.message.bytes": "100"})
    start_worker(broker)
    wait_until(
        lambda: len(broker.parts.completer._waiting) > 0,
        deadline_s=DEADLINE_S,
        what="dead letters that are held",
    )
    assert list(broker.dead_letters(QUEUE)) == []
    assert broker.count(QUEUE) == MESSAGES
    assert told == []

    configure(broker, topic, {"max.message.bytes": str(MAX_DEAD_LETTER_BYTES)})
    broker.join(QUEUE, timeout=int(DEADLINE_S * 1000))
    dead_letters = list(broker.dead_letters(QUEUE))
    assert {dead_letter.message.message_id for dead_letter in dead_letters if dead_letter.message} == sent
    assert {dead_letter.error_type for dead_letter in dead_letters} == {"PermanentError"}
    assert len({dead_letter.origin for dead_letter in told}) == len(told) == MESSAGES


def configure(broker: KafkaBroker, topic: str, configs: dict[str, str]) -> None:
    with whole_admin(broker.parts.clients) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])
