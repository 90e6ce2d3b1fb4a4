"""Partitions are added to the topics of a queue while its workers run."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from typing import Any

import dramatiq
import pytest
from dramatiq import Actor, Worker
from dramatiq.middleware import CurrentMessage

from broker import KafkaBroker, default_middleware
from broker.errors import RECORD_ERRORS
from broker.produce.record import Record
from dev.stack import Stack
from tests.broker.conftest import MakeBroker, StartWorker, stop
from tests.broker.partitions import raise_partitions, records_of
from tests.waiting import wait_until

pytestmark = pytest.mark.real_kafka("it cannot add partitions")

QUEUE = "work"
BEFORE, AFTER = 4, 12
#: Far below the five minutes after which kafka-python looks by itself.
DEADLINE_S = 60
KEYS = 16
BACKOFF_MS = 200


class Play:
    """A queue, whose tasks say what ran. Its brokers are as many processes' would be."""

    def __init__(self, stack: Stack, namespace: str, make_broker: MakeBroker) -> None:
        self._stack = stack
        self.namespace = namespace
        self._make_broker = make_broker
        self._lock = threading.Lock()
        self.runs: list[Any] = []
        self.of_key: dict[str, list[int]] = defaultdict(list)
        self.overlaps: list[str] = []
        self.attempts: dict[tuple[str, int], int] = defaultdict(int)
        self._running: set[str] = set()
        self.healthy = threading.Event()
        self.healthy.set()

    def broker(self) -> tuple[KafkaBroker, Actor[Any, Any], Actor[Any, Any]]:
        """A broker as another process would make it, its plain actor and its keyed one."""
        broker = self._make_broker(
            namespace=self.namespace,
            partitions=BEFORE,
            middleware=[*default_middleware(), CurrentMessage()],
        )
        options: dict[str, Any] = {
            "broker": broker, "queue_name": QUEUE, "max_retries": 10**6,
            "min_backoff": BACKOFF_MS, "max_backoff": BACKOFF_MS,
        }  # fmt: skip

        @dramatiq.actor(**options)
        def plain(number: Any) -> None:
            with self._lock:
                self.runs.append(number)

        @dramatiq.actor(key_order="ordered", **options)
        def keyed(key: str, number: int, fails: int) -> None:
            with self._lock:
                if key in self._running:
                    self.overlaps.append(key)
                self._running.add(key)
                self.attempts[key, number] += 1
                failing = self.attempts[key, number] <= fails or not self.healthy.is_set()
            try:
                if failing:
                    raise ConnectionError(f"{key} {number} fails for now")
                with self._lock:
                    self.of_key[key].append(number)
            finally:
                with self._lock:
                    self._running.discard(key)

        return broker, plain, keyed

    def add_partitions(self, *topics: str) -> None:
        for topic in topics:
            raise_partitions(self._stack.bootstrap_servers, f"{self.namespace}{topic}", AFTER)

    def entries(self) -> dict[bytes, set[int]]:
        """The partitions of the lanes topic that each message has records in."""
        found: dict[bytes, set[int]] = defaultdict(set)
        for record in records_of(self._stack.bootstrap_servers, f"{self.namespace}{QUEUE}_lanes"):
            if not record.key.endswith(b":-1:-1"):
                found[record.key].add(record.partition)
        return found

    def wait_until_ran(self, numbers: set[Any]) -> None:
        wait_until(
            lambda: numbers <= set(self.runs), deadline_s=DEADLINE_S, what=f"{len(numbers)} tasks to run"
        )

    def wait_until_ran_of_keys(self, expected: dict[str, list[int]]) -> None:
        wait_until(
            lambda: all(set(numbers) <= set(self.of_key[key]) for key, numbers in expected.items()),
            deadline_s=DEADLINE_S,
            what=f"the tasks of {len(expected)} keys to run",
        )


@pytest.fixture
def play(stack: Stack, namespace: str, make_broker: MakeBroker) -> Play:
    return Play(stack, namespace, make_broker)


@pytest.fixture
def start_worker(start_worker: StartWorker) -> Iterator[StartWorker]:
    """Starts workers that end with the test."""
    workers: list[Worker] = []

    def start(broker: KafkaBroker) -> Worker:
        workers.append(start_worker(broker))
        return workers[-1]

    yield start
    for worker in workers:
        stop(worker)


def send_keyed(keyed: Actor[Any, Any], numbers: range, *, keys: str, fails: int) -> dict[str, list[int]]:
    """Send so many messages of each key, of which the first fails so often."""
    names = [f"{keys}-{key}" for key in range(KEYS)]
    broker = keyed.broker
    assert isinstance(broker, KafkaBroker)
    broker.enqueue_many(
        [
            keyed.message(name, number, fails if number == numbers[0] else 0).copy(
                options={"partition_key": name}
            )
            for number in numbers
            for name in names
        ]
    )
    return {name: list(numbers) for name in names}


def test_what_is_sent_to_added_partitions_runs_on_workers_that_run_already(
    play: Play, start_worker: StartWorker
) -> None:
    # Given a worker, and a sender that knows the topic
    worker_broker, _, _ = play.broker()
    start_worker(worker_broker)
    old_sender, old_plain, old_keyed = play.broker()
    old_plain.send("before")
    expected = send_keyed(old_keyed, range(3), keys="before", fails=1)
    play.wait_until_ran({"before"})
    play.wait_until_ran_of_keys(expected)

    # When partitions are added, and others send there, keyed messages that wait for retries among it
    play.add_partitions(QUEUE)
    new_sender, new_plain, new_keyed = play.broker()
    new_sender.enqueue_many([new_plain.message(number) for number in range(200)])
    new_sender.enqueue_many([new_plain.message(f"late {number}") for number in range(20)], delay=300)
    expected = send_keyed(new_keyed, range(4), keys="after", fails=2)

    # Then all of it runs, and what has a key in its order
    play.wait_until_ran({*range(200), *(f"late {number}" for number in range(20))})
    play.wait_until_ran_of_keys(expected)
    assert {key: play.of_key[key] for key in expected} == expected
    assert play.overlaps == []

    # And the old sender, too, sends to where the others do by then
    expected = send_keyed(old_keyed, range(4, 6), keys="after", fails=0)
    play.wait_until_ran_of_keys(expected)
    worker_broker.join(QUEUE, timeout=DEADLINE_S * 1000)
    assert {key: play.of_key[key] for key in expected} == {key: list(range(6)) for key in expected}
    assert old_sender.count(QUEUE) == 0


def test_nothing_is_lost_and_keys_keep_their_order_when_partitions_are_added_under_load(
    play: Play, start_worker: StartWorker
) -> None:
    # Given a load of every kind
    worker_broker, _, _ = play.broker()
    start_worker(worker_broker)
    _, plain, keyed = play.broker()
    expected = send_keyed(keyed, range(3), keys="first", fails=1)
    play.wait_until_ran_of_keys(expected)
    sent: set[Any] = set()
    stopped = threading.Event()

    def load() -> None:
        for number in count():
            if stopped.is_set():
                return
            plain.send(number)
            plain.send_with_options(args=(f"late {number}",), delay=200)
            sent.update({number, f"late {number}"})

    loading = threading.Thread(target=load)
    loading.start()
    wait_until(lambda: 20 in play.runs, deadline_s=DEADLINE_S, what="the load to begin")

    # When every topic gets more partitions
    try:
        play.add_partitions(QUEUE, f"{QUEUE}_lanes", "delayed")
        _, _, keyed_since = play.broker()
        expected = send_keyed(keyed_since, range(5), keys="since", fails=2)
        play.wait_until_ran_of_keys(expected)
    finally:
        stopped.set()
        loading.join()

    # Then everything has run, and what has a key in order
    play.wait_until_ran(sent)
    assert {key: play.of_key[key] for key in expected} == expected
    assert play.overlaps == []
    worker_broker.join(QUEUE, timeout=DEADLINE_S * 1000)


def test_what_waits_in_a_lanes_topic_that_gets_more_partitions_runs_once(
    play: Play, start_worker: StartWorker
) -> None:
    # Given messages that wait for their retry, and some behind them
    first, _, keyed = play.broker()
    worker = start_worker(first)
    play.healthy.clear()
    expected = send_keyed(keyed, range(3), keys="key", fails=0)
    wait_until(lambda: len(play.entries()) == KEYS * 3, deadline_s=DEADLINE_S, what="all to wait")
    stop(worker)

    # When the topic gets more partitions, and the next worker runs them
    play.add_partitions(f"{QUEUE}_lanes")
    play.healthy.set()
    second, plain, _ = play.broker()
    worker = start_worker(second)
    play.wait_until_ran_of_keys(expected)
    second.join(QUEUE, timeout=DEADLINE_S * 1000)
    stop(worker)

    # Then they are over for whoever reads the topic from its beginning: all of a message are in one partition
    third, plain, _ = play.broker()
    assert third.count(QUEUE) == 0
    start_worker(third)
    plain.send("last")
    play.wait_until_ran({"last"})
    third.join(QUEUE, timeout=DEADLINE_S * 1000)
    assert {key: play.of_key[key] for key in expected} == expected
    assert {len(found) for found in play.entries().values()} == {1}


def test_a_partition_that_the_producer_has_not_heard_of_is_not_held_against_the_record(
    play: Play,
) -> None:
    broker, plain, _ = play.broker()
    plain.send("before")
    topic = broker.parts.topics.queue(QUEUE)
    play.add_partitions(QUEUE)

    last, beyond = (Record(topic, b"{}", partition=number) for number in (AFTER - 1, AFTER))
    assert broker.parts.publisher.publish([last]) == {}

    failure = broker.parts.publisher.publish([beyond, last])[0]
    assert not isinstance(failure, RECORD_ERRORS)
    assert f"no partition {AFTER}" in str(failure)
