"""Messages with a partition_key: one after another, in order, whatever becomes of the one before."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import dramatiq
import pytest
from dramatiq import Actor, Worker, group, pipeline
from dramatiq.middleware import CurrentMessage, GroupCallbacks
from dramatiq.rate_limits.backends import StubBackend

from broker import KafkaBroker, PermanentError
from broker.admin.backlog import Backlog
from broker.admin.lane_backlog import LaneBacklog
from broker.partition_keys.lanes import MAX_PARKED_OF_A_KEY
from dev.stack import Stack
from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.conftest import WORKER_TIMEOUT_MS
from tests.waiting import wait_until

QUEUE = "keyed"
DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = 60_000
THREADS = 8
BACKOFF_MS = 500

_names = count(1)


class Journal:
    """What ran, by key: the numbers in the order in which they began, and whether two ever ran at once."""

    def __init__(self) -> None:
        self.begun: dict[str, list[Any]] = defaultdict(list)
        self.ended: dict[str, list[Any]] = defaultdict(list)
        self.overlaps: list[tuple[str, Any]] = []
        self._running: dict[str, Any] = {}
        self._lock = threading.Lock()

    def run(self, key: str, number: Any, do: Callable[[], object] = lambda: None) -> None:
        with self._lock:
            if key in self._running:
                self.overlaps.append((key, number))
            self._running[key] = number
            self.begun[key].append(number)
        try:
            do()
        finally:
            with self._lock:
                self._running.pop(key, None)
                self.ended[key].append(number)


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal()
    yield journal
    assert journal.overlaps == []


@pytest.fixture(scope="module")
def broker(kafka_backend: KafkaBackend) -> Iterator[KafkaBroker]:
    """A broker with one worker on the queue "keyed", which has one partition: keys share it."""
    broker = kafka_backend.broker(CurrentMessage(), GroupCallbacks(StubBackend()), partitions=1)
    broker.declare_queue(QUEUE)
    worker = Worker(broker, worker_timeout=WORKER_TIMEOUT_MS, worker_threads=THREADS)
    worker.start()
    yield broker
    worker.stop()
    broker.close()


@pytest.fixture
def declare(broker: KafkaBroker) -> Callable[..., Actor[Any, Any]]:
    def declare(fn: Callable[..., Any], **options: Any) -> Actor[Any, Any]:
        name = f"task_{next(_names)}"
        defaults = {"max_retries": 3, "min_backoff": BACKOFF_MS, "max_backoff": BACKOFF_MS}
        declared = dramatiq.actor(broker=broker, queue_name=QUEUE, actor_name=name, **(defaults | options))
        return declared(fn)

    return declare


def send(actor: Actor[Any, Any], key: str | None, *args: Any, **options: Any) -> dramatiq.Message[Any]:
    return actor.send_with_options(args=(key, *args), partition_key=key, **options)


def test_messages_of_a_key_run_one_after_another_and_those_of_others_side_by_side(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal
) -> None:
    all_keys_run = threading.Barrier(4)

    def task(key: str, number: int) -> None:
        journal.run(key, number, lambda: all_keys_run.wait(DEADLINE_S))

    actor = declare(task)
    keys = [f"side-{n}" for n in range(4)]
    broker.enqueue_many(
        [
            actor.message_with_options(args=(key, number), partition_key=key)
            for number in range(20)
            for key in keys
        ]
    )
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert {key: journal.begun[key] for key in keys} == {key: list(range(20)) for key in keys}


def test_a_key_that_is_stuck_stops_no_other_and_its_followers_are_acked_and_stay_in_order(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal, stack: Stack
) -> None:
    gate = threading.Event()
    followers = 3 * MAX_PARKED_OF_A_KEY

    def task(key: str, number: int) -> None:
        journal.run(key, number, gate.wait if key == "stuck" and number == 0 else lambda: None)

    actor = declare(task)
    messages = [("stuck", 0)]
    for number in range(1, followers + 1):
        messages += [("stuck", number), (f"free-{number % 7}", number)]
    broker.enqueue_many(
        [actor.message_with_options(args=message, partition_key=message[0]) for message in messages]
    )
    try:
        wait_until(
            lambda: sum(len(ended) for key, ended in journal.ended.items()) == followers,
            deadline_s=DEADLINE_S,
            what="all others to be done",
        )
        wait_until(
            lambda: in_their_lanes(broker) == followers - MAX_PARKED_OF_A_KEY,
            deadline_s=DEADLINE_S,
            what="those behind it to wait in Kafka",
        )
        if stack.name == "real":  # the embedded one keeps no commit metadata
            wait_until(
                lambda: in_the_queue(broker) == MAX_PARKED_OF_A_KEY + 1,
                deadline_s=DEADLINE_S,
                what="the rest to be acked",
            )
    finally:
        gate.set()
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert journal.begun["stuck"] == list(range(followers + 1))


def in_their_lanes(broker: KafkaBroker) -> int:
    """How many messages wait in the lanes topic."""
    view = LaneBacklog(
        broker.parts.clients,
        broker.parts.topics,
        broker.parts.publisher,
        group=broker.parts.settings.group_id,
    )
    try:
        return view.count(QUEUE)
    finally:
        view.close()


def in_the_queue(broker: KafkaBroker) -> int:
    """How many records of the queue's topic are not acked."""
    with Backlog(
        broker.parts.clients, broker.parts.topics.queue(QUEUE), broker.parts.group_of(QUEUE)
    ) as backlog:
        return backlog.count()


def test_while_an_ordered_retry_waits_later_ones_wait_behind_it_and_hold_no_acks(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal
) -> None:
    failures = [2, 2, 5]

    def task(key: str, number: int) -> None:
        journal.run(key, number)
        if number in failures:
            failures.remove(number)
            raise RuntimeError("asked to")

    actor = declare(task, key_order="ordered", min_backoff=3_000, max_backoff=3_000)
    for number in range(8):
        send(actor, "ordered", number)
    wait_until(
        lambda: journal.ended["ordered"] == [0, 1, 2] and in_the_queue(broker) == 0,
        deadline_s=DEADLINE_S,
        what="everything behind the retry to be acked",
    )
    assert broker.count(QUEUE) == 6
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert journal.begun["ordered"] == [0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7]


def test_while_a_relaxed_retry_waits_later_ones_pass_it(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal
) -> None:
    failures = [1]

    def task(key: str, number: int) -> None:
        journal.run(key, number)
        if number in failures:
            failures.remove(number)
            raise RuntimeError("asked to")

    actor = declare(task)
    for number in range(5):
        send(actor, "relaxed", number)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert journal.begun["relaxed"] == [0, 1, 2, 3, 4, 1]


@pytest.mark.parametrize("how", ["exhausted", "for good"])
def test_a_message_that_fails_for_good_lets_those_behind_it_go_on(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal, how: str
) -> None:
    def task(key: str, number: int) -> None:
        journal.run(key, number)
        if number == 0:
            raise PermanentError("asked to") if how == "for good" else RuntimeError("asked to")

    actor = declare(task, key_order="ordered", max_retries=1)
    sent = [send(actor, f"dead {how}", number) for number in range(3)]
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert journal.begun[f"dead {how}"] == ([0, 1, 2] if how == "for good" else [0, 0, 1, 2])
    (dead_letter,) = broker.dead_letters(QUEUE, message_id=sent[0].message_id)
    assert all(not name.startswith("lane-") for name, _ in dead_letter.headers)


def test_a_redriven_message_is_one_of_its_key_again(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal
) -> None:
    gate, failing = threading.Event(), [True]

    def task(key: str, number: int) -> None:
        journal.run(key, number, lambda: number == 1 and gate.wait(DEADLINE_S))
        if number == 0 and failing:
            raise RuntimeError("asked to")

    actor = declare(task, key_order="ordered", max_retries=1)
    sent = send(actor, "redriven", 0)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    failing.clear()
    send(actor, "redriven", 1)
    broker.redrive(QUEUE, message_id=sent.message_id, dry_run=False, reason="repaired")
    gate.set()
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert journal.begun["redriven"] == [0, 0, 1, 0]


def test_a_delayed_message_has_its_place_from_when_it_comes_to_its_queue(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal
) -> None:
    gate = threading.Event()

    def task(key: str, number: int) -> None:
        journal.run(key, number, lambda: number == 1 and gate.wait(DEADLINE_S))

    actor = declare(task)
    for delay_ms in (500, 2_000, 8_000):
        key, before_s = f"delayed by {delay_ms} ms", time.monotonic()
        send(actor, key, 0, delay=delay_ms)
        send(actor, key, 1)
        if time.monotonic() - before_s < delay_ms / 1000:
            break  # otherwise the delayed one may have come first, and this shows nothing
    wait_until(
        lambda: broker.parts.delays.count(QUEUE) == 0,
        deadline_s=DEADLINE_S,
        what="the delayed one to be forwarded",
    )
    gate.set()
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert journal.begun[key] == [1, 0]


def test_a_key_comes_before_a_priority(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal
) -> None:
    def task(key: str, number: int) -> None:
        journal.run(key, number, lambda: time.sleep(0.01))

    patient, urgent = declare(task, priority=100), declare(task, priority=0)
    for number in range(6):
        send(urgent if number % 2 else patient, "priority", number)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert journal.begun["priority"] == list(range(6))


def test_an_actor_can_make_the_key_of_a_messages_arguments(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]]
) -> None:
    actor = declare(lambda user, number: None, partition_key=lambda user, number: user and f"user-{user}")
    assert actor.send(7, 1).options["partition_key"] == "user-7"
    assert "partition_key" not in actor.send(None, 1).options
    own = actor.send_with_options(args=(7, 1), partition_key="own")
    assert own.options["partition_key"] == "own"
    assert actor.send_with_options(args=(7, 1), partition_key=None).options["partition_key"] is None
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)


def test_steps_of_pipelines_and_members_of_groups_have_keys_of_their_own(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal
) -> None:
    completed = threading.Event()

    def task(key: str, number: int, *_: object) -> str:
        journal.run(key, number)
        return key

    actor = declare(task)
    done = declare(lambda: completed.set())
    members = [
        pipeline(
            [
                actor.message_with_options(args=("first step", n), partition_key="first step"),
                actor.message_with_options(
                    args=("second step", n), partition_key="second step", pipe_ignore=True
                ),
            ],
            broker=broker,
        )
        for n in range(5)
    ]
    for member in members:
        member.run()
    together = group(
        [actor.message_with_options(args=("group", n), partition_key="group") for n in range(5)],
        broker=broker,
    )
    together.add_completion_callback(done.message())
    together.run()
    assert completed.wait(DEADLINE_S)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert dict(journal.begun) == {key: list(range(5)) for key in ("first step", "second step", "group")}


@pytest.mark.real_kafka(reason="delete_records")
def test_flush_drops_what_waits_in_a_lane(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal
) -> None:
    def task(key: str, number: int) -> None:
        journal.run(key, number)
        if number == 0:
            raise RuntimeError("asked to")

    actor = declare(task, key_order="ordered", min_backoff=3_600_000, max_backoff=3_600_000)
    for number in range(4):
        send(actor, "flushed", number)
    wait_until(lambda: in_the_queue(broker) == 0, deadline_s=DEADLINE_S, what="all of them to wait")
    broker.flush(QUEUE)
    assert broker.count(QUEUE) == 0
    send(actor, "flushed", 9)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert journal.begun["flushed"] == [0, 9]


@pytest.mark.real_kafka(reason="delete_records")
def test_flush_drops_what_waits_behind_one_that_runs(
    broker: KafkaBroker, declare: Callable[..., Actor[Any, Any]], journal: Journal
) -> None:
    gate = threading.Event()

    def task(key: str, number: int) -> None:
        journal.run(key, number, lambda: gate.wait(DEADLINE_S))

    actor = declare(task)
    # Some are parked in memory, and some have to wait in the lanes topic.
    broker.enqueue_many(
        [
            actor.message_with_options(args=("behind", number), partition_key="behind")
            for number in range(2 * MAX_PARKED_OF_A_KEY)
        ]
    )
    wait_until(lambda: journal.begun["behind"], deadline_s=DEADLINE_S, what="the first to run")
    broker.flush(QUEUE)
    assert broker.count(QUEUE) == 1
    send(actor, "behind", "later")
    gate.set()
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert journal.begun["behind"] == [0, "later"]
