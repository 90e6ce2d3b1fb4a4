"""Messages that other producers send to a queue's topic in transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import dramatiq
import pytest
from kafka import KafkaProducer

from broker import KafkaBroker
from broker.consume import open_transactions as transactions
from tests.broker.conftest import MakeBroker, StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.real_kafka("transactions")


@pytest.fixture
def queue(make_broker: MakeBroker) -> tuple[dramatiq.Actor[[str], None], KafkaBroker, list[str]]:
    broker, ran = make_broker(partitions=1), list[str]()

    @dramatiq.actor(broker=broker)
    def task(word: str) -> None:
        ran.append(word)

    broker.parts.topics.ensure(broker.parts.topics.of_worker("default"))
    return task, broker, ran


@contextmanager
def transactional(broker: KafkaBroker, name: str = "a") -> Iterator[KafkaProducer]:
    """A producer in the midst of a transaction."""
    producer = KafkaProducer(
        bootstrap_servers=broker.parts.clients.bootstrap_servers,
        transactional_id=f"{broker.parts.topics.queue('default')}-{name}",
        transaction_timeout_ms=60_000,
    )
    with closing(producer):
        producer.init_transactions()
        producer.begin_transaction()
        yield producer


def send(producer: KafkaProducer, task: dramatiq.Actor[[str], None], *words: str) -> None:
    broker = task.broker
    assert isinstance(broker, KafkaBroker)
    for word in words:
        producer.send(broker.parts.topics.queue("default"), task.message(word).encode())
    producer.flush()


def test_only_messages_of_committed_transactions_run(
    queue: tuple[dramatiq.Actor[[str], None], KafkaBroker, list[str]], start_worker: StartWorker
) -> None:
    task, broker, ran = queue
    task.send("before")
    with transactional(broker) as producer:
        send(producer, task, "aborted 1", "aborted 2")
        producer.abort_transaction()
        producer.begin_transaction()
        send(producer, task, "committed")
        producer.commit_transaction()
        producer.begin_transaction()
        send(producer, task, "aborted 3")
        producer.abort_transaction()
    task.send("after")
    start_worker(broker)

    wait_until(lambda: "after" in ran, deadline_s=60, what="the last message")
    assert sorted(ran) == ["after", "before", "committed"]
    broker.join("default", timeout=60_000)
    assert broker.count("default") == 0


def test_an_open_transaction_is_reported_and_what_waits_for_its_end_counted_and_run(
    queue: tuple[dramatiq.Actor[[str], None], KafkaBroker, list[str]],
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task, broker, ran = queue
    monkeypatch.setattr(transactions, "ASK_AFTER_S", 1.0)
    task.send("before")
    with transactional(broker) as producer:
        send(producer, task, "aborted")
        task.send("behind it")
        start_worker(broker)

        wait_until(lambda: "waits at offset 1: a transaction" in caplog.text, deadline_s=60, what="a warning")
        assert f"{broker.parts.topics.queue('default')}-0 waits at offset 1" in caplog.text
        assert ran == ["before"]
        wait_until(lambda: broker.count("default") == 2, deadline_s=60, what="a count of what waits")
        producer.abort_transaction()

    wait_until(lambda: ran == ["before", "behind it"], deadline_s=60, what="what waited")
    wait_until(lambda: "continues at offset 1" in caplog.text, deadline_s=60, what="the end of the warning")
    assert caplog.text.count("a transaction has been open") == 1
    broker.join("default", timeout=60_000)


def test_a_worker_that_takes_over_goes_on_behind_an_open_transaction_once_it_ends(
    queue: tuple[dramatiq.Actor[[str], None], KafkaBroker, list[str]],
    make_broker: MakeBroker,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task, broker, ran = queue
    monkeypatch.setattr(transactions, "ASK_AFTER_S", 1.0)
    successor = make_broker(namespace=broker.parts.topics.queue(""))
    dramatiq.actor(broker=successor, actor_name="task")(task.fn)
    task.send("before")
    first = start_worker(broker)
    wait_until(lambda: ran == ["before"], deadline_s=60, what="the first message")
    first.stop()
    with transactional(broker) as producer:
        send(producer, task, "in it")
        task.send("behind it")
        start_worker(successor)
        wait_until(lambda: "waits at offset 1: a transaction" in caplog.text, deadline_s=60, what="a warning")
        producer.commit_transaction()

    wait_until(lambda: len(ran) > 2, deadline_s=60, what="the others")
    assert ran == ["before", "in it", "behind it"]
