"""Pauses of a queue, under load and through the ends of its workers, on each kind of Kafka."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dramatiq
import pytest

from broker import KafkaBroker
from broker.control.commands import IN_FORCE_AFTER_S
from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.conftest import StartWorker
from tests.waiting import wait_until

QUEUE = "mail"
OTHER_QUEUE = "other"
PARTITIONS = 2
DEADLINE_S = 60
JOIN_TIMEOUT_MS = 60_000
KEYS = ("a", "b")
UNKEYED, DELAYED, PER_KEY = 40, 10, 8


class Mail:
    """Worker processes on one namespace, and what ran in them.

    Attributes:
      begun: The numbers of the tasks of the queue that began, in order.
      ended: The tasks of the queue that succeeded: their keys and numbers.
      others: One item for each task of the other queue.
      sent: The messages of the queue: their keys and numbers.
    """

    def __init__(self, kafka_backend: KafkaBackend) -> None:
        self._backend = kafka_backend
        self._lock = threading.Lock()
        self._failed: set[tuple[str, int]] = set()
        self.begun: list[int] = []
        self.ended: list[tuple[str, int]] = []
        self.others: list[int] = []
        self.sent: list[tuple[str, int]] = []
        self.sent_to_a_key = 0
        self.operator = self.process()

    def process(self, **settings: Any) -> KafkaBroker:
        """The broker of one more process."""
        namespace = {} if not hasattr(self, "operator") else {"namespace": self.namespace}
        broker = self._backend.broker(partitions=PARTITIONS, **namespace, **settings)

        @dramatiq.actor(broker=broker, queue_name=QUEUE, min_backoff=50, max_backoff=200)
        def unkeyed(number: int) -> None:
            with self._lock:
                self.begun.append(number)
            time.sleep(0.005)
            self._fail_once("", number)

        @dramatiq.actor(broker=broker, queue_name=QUEUE, key_order="ordered", min_backoff=50, max_backoff=200)
        def keyed(key: str, number: int) -> None:
            with self._lock:
                self.begun.append(number)
            self._fail_once(key, number)

        @dramatiq.actor(broker=broker, queue_name=OTHER_QUEUE)
        def other() -> None:
            with self._lock:
                self.others.append(1)

        return broker

    @property
    def namespace(self) -> str:
        return self.operator.parts.topics.queue("")

    def _fail_once(self, key: str, number: int) -> None:
        with self._lock:
            if number % 4 == 0 and (key, number) not in self._failed:
                self._failed.add((key, number))
                raise ConnectionError("the first attempt fails")
            self.ended.append((key, number))

    def send(self) -> None:
        """Send messages of all kinds. Each is to end once."""
        unkeyed, keyed = self.operator.get_actor("unkeyed"), self.operator.get_actor("keyed")
        first, first_of_a_key = len(self.sent), self.sent_to_a_key
        numbers = range(first, first + UNKEYED)
        self.operator.enqueue_many([unkeyed.message(number) for number in numbers])
        self.sent += [("", number) for number in numbers]
        for number in range(first + UNKEYED, first + UNKEYED + DELAYED):
            unkeyed.send_with_options(args=(number,), delay=200)
            self.sent.append(("", number))
        for number in range(first_of_a_key, first_of_a_key + PER_KEY):
            for key in KEYS:
                keyed.send_with_options(args=(key, number), partition_key=key)
                self.sent.append((key, number))
        self.sent_to_a_key += PER_KEY

    def ended_of(self, key: str) -> list[int]:
        with self._lock:
            return [number for which, number in self.ended if which == key]


@pytest.fixture
def mail(kafka_backend: KafkaBackend) -> Iterator[Mail]:
    mail = Mail(kafka_backend)
    yield mail
    mail.operator.close()


def is_applied(*brokers: KafkaBroker) -> Callable[[], bool]:
    """Whether workers have applied the pause, and all that had begun has ended."""
    return lambda: all(
        QUEUE in broker.parts.in_flight.gate.paused and broker.parts.in_flight.is_idle for broker in brokers
    )


def wait_for_partitions(*brokers: KafkaBroker) -> None:
    """Wait until workers have all partitions of both queues, in equal parts."""
    each = 2 * PARTITIONS // len(brokers)
    wait_until(
        lambda: all(len(broker.parts.in_flight.assigned()) == each for broker in brokers),
        deadline_s=DEADLINE_S,
        what="the partitions of both queues",
    )


def more(items: Sequence[Any], than: int) -> Callable[[], bool]:
    return lambda: len(items) > than


def assert_nothing_is_lost_or_reordered(mail: Mail) -> None:
    assert Counter(mail.ended) == Counter(mail.sent)
    for key in KEYS:
        assert mail.ended_of(key) == list(range(mail.sent_to_a_key))


def test_nothing_of_a_paused_queue_begins_and_nothing_is_lost_repeated_or_reordered(
    mail: Mail, start_worker: StartWorker
) -> None:
    workers = [mail.process(), mail.process()]
    for broker in workers:
        start_worker(broker)
    wait_for_partitions(*workers)  # a message that runs while its partition moves runs twice
    # Given a queue that is paused and resumed repeatedly under load
    for _ in range(3):
        runs = more(mail.begun, len(mail.begun))
        mail.send()
        wait_until(runs, deadline_s=DEADLINE_S, what="runs")
        mail.operator.pause(QUEUE, reason="a test")
        wait_until(is_applied(*workers), deadline_s=DEADLINE_S, what="the workers to apply the pause")
        begun = len(mail.begun)
        # When tasks of another queue run meanwhile
        another_run = more(mail.others, len(mail.others))
        mail.operator.get_actor("other").send()
        wait_until(another_run, deadline_s=DEADLINE_S, what="the other queue")
        # Then none of the paused queue has begun
        assert len(mail.begun) == begun
        mail.operator.resume(QUEUE)
    mail.operator.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert_nothing_is_lost_or_reordered(mail)
    for broker in workers:
        broker.close()


def test_a_pause_outlives_the_restart_of_all_workers(mail: Mail, start_worker: StartWorker) -> None:
    mail.send()
    mail.operator.pause(QUEUE, reason="a test")
    for _ in range(2):
        broker = mail.process()
        worker = start_worker(broker)
        mail.operator.get_actor("other").send()
        mail.operator.join(OTHER_QUEUE, timeout=JOIN_TIMEOUT_MS)
        assert mail.begun == []
        worker.stop()
        broker.close()
    mail.operator.resume(QUEUE)
    broker = mail.process()
    start_worker(broker)
    mail.operator.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert_nothing_is_lost_or_reordered(mail)
    broker.close()


def test_a_pause_causes_no_rebalance(mail: Mail, start_worker: StartWorker) -> None:
    broker = mail.process()
    start_worker(broker)
    mail.send()
    wait_until(lambda: mail.begun, deadline_s=DEADLINE_S, what="runs")
    # One partition may be taken over after the other has begun.
    wait_for_partitions(broker)
    epoch = broker.parts.in_flight.next_epoch()
    mail.operator.pause(QUEUE, reason="a test")
    wait_until(is_applied(broker), deadline_s=DEADLINE_S, what="the worker to apply the pause")
    mail.operator.resume(QUEUE)
    mail.operator.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert broker.parts.in_flight.next_epoch() == epoch + 1, "a partition was assigned again"
    assert_nothing_is_lost_or_reordered(mail)
    broker.close()


def test_messages_that_a_quiet_worker_has_prefetched_run_on_another_one(
    kafka_backend: KafkaBackend, start_worker: StartWorker
) -> None:
    runs: list[tuple[str, int]] = []
    gate, began = threading.Event(), threading.Event()

    def process(name: str, **settings: Any) -> KafkaBroker:
        broker = kafka_backend.broker(partitions=1, **settings)

        @dramatiq.actor(broker=broker, queue_name=QUEUE)
        def task(number: int) -> None:
            began.set()
            if name == "quiet":
                assert gate.wait(DEADLINE_S)
            runs.append((name, number))

        return broker

    first = process("quiet")
    start_worker(first, worker_threads=1)
    for number in range(4):
        first.get_actor("task").send(number)
    assert began.wait(DEADLINE_S)
    second = process("other", namespace=first.parts.topics.queue(""))
    second.quiet(first.parts.identity.worker_id, reason="a test", allow_unseen=True)
    wait_until(lambda: first.parts.in_flight.gate.is_quiet, deadline_s=DEADLINE_S, what="the command")
    start_worker(second)
    gate.set()
    second.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert sorted(runs) == [("other", 1), ("other", 2), ("other", 3), ("quiet", 0)]
    for broker in (first, second):
        broker.close()


def test_a_pause_is_in_force_once_all_workers_have_confirmed_it(
    mail: Mail, start_worker: StartWorker
) -> None:
    workers = [mail.process(), mail.process()]
    for broker in workers:
        start_worker(broker)
        mail.send()
    wait_for_partitions(*workers)
    result = mail.operator.pause(QUEUE, reason="a test", timeout_s=DEADLINE_S)
    ids = {broker.parts.identity.worker_id for broker in workers}
    assert (result.is_certain, result.unconfirmed, result.unknown) == (True, (), ())
    assert set(result.confirmed) == ids
    for broker in workers:
        assert QUEUE in broker.parts.in_flight.gate.paused
        broker.close()


def test_a_pause_is_in_force_after_the_lease_although_a_worker_says_nothing(
    mail: Mail, start_worker: StartWorker
) -> None:
    broker = mail.process(reports=False)
    start_worker(broker)
    mail.send()
    wait_until(lambda: mail.begun, deadline_s=DEADLINE_S, what="runs")
    result = mail.operator.pause(QUEUE, reason="a test", timeout_s=IN_FORCE_AFTER_S + 5)
    assert (result.in_force, result.is_certain) == (True, False)
    assert result.confirmed == ()
    (unknown,) = result.unknown
    assert "(client '" in unknown
    broker.close()
