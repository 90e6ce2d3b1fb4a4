"""Replays of a queue with all kinds of messages, on each kind of Kafka."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest

from broker import KafkaBroker, ReplayState
from broker.replay.selection import UNFINISHED
from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.conftest import StartWorker
from tests.waiting import wait_until

QUEUE = "mail"
PARTITIONS = 2
DEADLINE_S = 60
JOIN_TIMEOUT_MS = 60_000
UNKEYED, DELAYED, PER_KEY = 40, 10, 12
KEYS = ("a", "b")
ALL = UNKEYED + DELAYED + PER_KEY * len(KEYS)
REASON = "a test"


class Mail:
    """A worker process, and what ran in it.

    Attributes:
      ended: The keys and numbers of the tasks that succeeded, in order.
      gate: Tasks of the actor ``blocked`` wait for it.
    """

    def __init__(self, broker: KafkaBroker) -> None:
        self.broker = broker
        self.ended: list[tuple[str, int]] = []
        self.gate, self.is_blocked = threading.Event(), threading.Event()
        self._failed: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

        @dramatiq.actor(broker=broker, queue_name=QUEUE, min_backoff=50, max_backoff=200)
        def unkeyed(number: int) -> None:
            self._end("", number)

        @dramatiq.actor(broker=broker, queue_name=QUEUE, key_order="ordered", min_backoff=50, max_backoff=200)
        def keyed(key: str, number: int) -> None:
            self._end(key, number)

        @dramatiq.actor(broker=broker, queue_name=QUEUE)
        def blocked() -> None:
            self.is_blocked.set()
            assert self.gate.wait(DEADLINE_S)
            self._end("blocked", 0)

        self._unkeyed, self._keyed, self.blocked = unkeyed, keyed, blocked

    def _end(self, key: str, number: int) -> None:
        """Fail at the first attempt of each fourth message."""
        with self._lock:
            if number % 4 == 3 and (key, number) not in self._failed:
                self._failed.add((key, number))
                raise ConnectionError("the first attempt fails")
            self.ended.append((key, number))

    def send(self) -> None:
        self.broker.enqueue_many([self._unkeyed.message(number) for number in range(UNKEYED)])
        for number in range(UNKEYED, UNKEYED + DELAYED):
            self._unkeyed.send_with_options(args=(number,), delay=200)
        for number in range(PER_KEY):
            for key in KEYS:
                self._keyed.send_with_options(args=(key, number), partition_key=key)

    def join(self) -> None:
        self.broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)


@pytest.fixture
def mail(kafka_backend: KafkaBackend) -> Iterator[Mail]:
    mail = Mail(kafka_backend.broker(partitions=PARTITIONS))
    yield mail
    mail.gate.set()
    mail.broker.close()


@pytest.fixture
def operator(kafka_backend: KafkaBackend, mail: Mail) -> Iterator[KafkaBroker]:
    """The broker of another process, which declares the queue and no actor."""
    broker = kafka_backend.broker(namespace=mail.broker.parts.topics.queue(""))
    broker.declare_queue(QUEUE)
    yield broker
    broker.close()


def test_all_messages_run_once_more_and_those_of_a_key_in_their_order(
    mail: Mail, operator: KafkaBroker, start_worker: StartWorker
) -> None:
    start_worker(mail.broker)
    mail.send()
    mail.join()
    first = Counter(mail.ended)
    assert set(first.values()) == {1}
    mail.ended.clear()

    assert operator.replay(QUEUE).actors == {"unkeyed": UNKEYED + DELAYED, "keyed": PER_KEY * len(KEYS)}
    result = operator.replay(QUEUE, dry_run=False, reason=REASON, rate_per_s=None)
    mail.join()

    assert (result.selected, result.sent) == (ALL, ALL)
    assert Counter(mail.ended) == first
    for key in KEYS:
        assert [number for which, number in mail.ended if which == key] == list(range(PER_KEY))
    [record] = operator.replays()
    assert (record.state, record.sent) == (ReplayState.DONE, ALL)


def test_a_replay_beside_a_working_worker_leaves_running_and_waiting_messages_alone(
    mail: Mail, operator: KafkaBroker, start_worker: StartWorker
) -> None:
    start_worker(mail.broker)
    mail.send()
    mail.join()
    mail.blocked.send()
    mail.blocked.send_with_options(delay=3_600_000)
    assert mail.is_blocked.wait(DEADLINE_S)
    mail.ended.clear()

    try:
        result = operator.replay(QUEUE, dry_run=False, reason=REASON, ids="new", rate_per_s=None)
        wait_until(lambda: len(mail.ended) >= ALL, deadline_s=DEADLINE_S, what="the messages")
    finally:
        mail.gate.set()
    assert (result.sent, result.skipped[UNFINISHED]) == (ALL, 1)
    wait_until(lambda: operator.count(QUEUE) == 1, deadline_s=DEADLINE_S, what="the rest")
    assert max(Counter(mail.ended).values()) == 1


def test_an_interrupted_replay_is_completed_by_its_repeat(
    mail: Mail, operator: KafkaBroker, start_worker: StartWorker
) -> None:
    start_worker(mail.broker)
    mail.send()
    mail.join()
    mail.ended.clear()

    def interrupt(result: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        operator.replay(QUEUE, dry_run=False, reason=REASON, rate_per_s=30, on_progress=interrupt)
    mail.join()
    assert len(mail.ended) == 30
    result = operator.replay(QUEUE, dry_run=False, reason=REASON, rate_per_s=None)
    mail.join()

    assert (result.sent_before, result.sent) == (30, ALL - 30)
    assert Counter(mail.ended) == dict.fromkeys(mail.ended, 1)
    assert len(mail.ended) == ALL
