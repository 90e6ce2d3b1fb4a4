"""Keyed messages while a leader that stood still shows the lanes topic as it was before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Actor, Worker
from dramatiq.middleware import CurrentMessage
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from broker import KafkaBroker, default_middleware
from dev.apache_kafka import ApacheKafkaServer
from tests.broker.conftest import MakeBroker, stop
from tests.broker.old_leader import SEES_ALL, OldLeader
from tests.waiting import wait_until

pytestmark = pytest.mark.real_kafka("its answers are not Kafka's, and they are changed on the way")

QUEUE = "keyed"
DEADLINE_S = 60.0
BACKOFF_MS = 300
#: More answers than one reading takes: whoever has them has not believed the first.
ANSWERS = 10


class Play:
    """One queue of one partition, whose lanes topic is read through an `OldLeader`."""

    def __init__(self, leader: OldLeader, make_broker: MakeBroker) -> None:
        self.leader = leader
        self.began: list[int] = []
        self.retries: list[int] = []
        self.failing: dict[int, int] = {}
        #: Whether tasks go on that have begun.
        self.gate = threading.Event()
        self.gate.set()
        self.workers: list[Worker] = []
        self._make_broker = make_broker
        self._namespace = leader.topic.removesuffix(f"{QUEUE}_lanes")

    def broker(self) -> KafkaBroker:
        broker = self._make_broker(
            bootstrap_servers=self.leader.address,
            namespace=self._namespace,
            partitions=1,
            middleware=[*default_middleware(), CurrentMessage()],
        )
        self.task = self._declare(broker)
        return broker

    def start_worker(self) -> Worker:
        worker = Worker(self.broker(), worker_timeout=100, worker_threads=4)
        worker.start()
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        self.gate.set()
        for worker in self.workers:
            stop(worker)

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.task.send_with_options(args=(number,), partition_key="key")

    def lanes_ends(self) -> dict[int, int]:
        """Where the lanes topic ends for those that nothing is hidden from."""
        kafka = KafkaConsumer(bootstrap_servers=self.leader.address, client_id=SEES_ALL)
        try:
            numbers = kafka.partitions_for_topic(self.leader.topic)
            found = kafka.end_offsets([TopicPartition(self.leader.topic, number) for number in numbers])
            return {partition.partition: end for partition, end in found.items()}
        finally:
            kafka.close()

    def lanes_have(self, more: int, *, than: dict[int, int]) -> bool:
        return sum(self.lanes_ends().values()) >= sum(than.values()) + more

    def wait_until_lanes_have(self, more: int, *, than: dict[int, int]) -> None:
        wait_until(
            lambda: self.lanes_have(more, than=than),
            deadline_s=DEADLINE_S,
            what=f"{more} records in the lanes topic",
        )

    def wait_until_began(self, number: int) -> None:
        wait_until(lambda: number in self.began, deadline_s=DEADLINE_S, what=f"{number} to begin")

    def wait_until_asked(self) -> None:
        wait_until(lambda: self.leader.hidden > 0, deadline_s=DEADLINE_S, what="the old leader to be asked")

    def _declare(self, broker: KafkaBroker) -> Actor[Any, Any]:
        @dramatiq.actor(
            broker=broker,
            queue_name=QUEUE,
            key_order="ordered",
            max_retries=9,
            min_backoff=BACKOFF_MS,
            max_backoff=BACKOFF_MS,
        )
        def task(number: int) -> None:
            message = CurrentMessage.get_current_message()
            assert message is not None
            self.retries.append(message.options.get("retries", 0))
            self.began.append(number)
            self.gate.wait(DEADLINE_S)
            if self.failing.get(number, 0) > 0:
                self.failing[number] -= 1
                raise ConnectionError(f"{number} fails for now")

        return task


@pytest.fixture
def play(
    apache_kafka: Callable[..., ApacheKafkaServer], namespace: str, make_broker: MakeBroker
) -> Iterator[Play]:
    leader = OldLeader(f"{namespace}{QUEUE}_lanes")
    apache_kafka(
        properties={"advertised.listeners": f"PLAINTEXT://{leader.address}"}, port=leader.server_port
    )
    play = Play(leader, make_broker)
    yield play
    play.close()
    leader.close()


def test_what_moved_behind_a_retry_runs_in_order_when_a_leader_that_stood_still_does_not_show_it(
    play: Play,
) -> None:
    # Given a worker that has read the lanes topic, which is then shown as it is now
    play.start_worker()
    play.failing[0] = 1
    play.send(0)
    wait_until(lambda: play.began == [0, 0], deadline_s=DEADLINE_S, what="the first retry")
    before = play.lanes_ends()
    play.leader.show_only(before)

    # When a message waits for its retry there, and others behind it, and the retry is due
    play.failing[1] = 1
    play.send(1, 2, 3, 4)
    play.wait_until_lanes_have(4, than=before)
    play.wait_until_asked()
    play.send(5)
    wait_until(
        lambda: 5 in play.began or play.lanes_have(5, than=before),
        deadline_s=DEADLINE_S,
        what="the last one to take its place",
    )
    play.leader.show_all()

    # Then all of them run, in order
    play.wait_until_began(5)
    assert play.began == [0, 0, 1, 1, 2, 3, 4, 5]


def test_a_retry_is_not_brought_back_as_the_attempt_before_that_a_leader_that_stood_still_shows(
    play: Play,
) -> None:
    # Given a message whose first retry runs, and is shown as waiting from now on
    play.start_worker()
    play.failing[0] = 2
    play.send(0)
    play.wait_until_began(0)
    play.gate.clear()
    wait_until(lambda: play.began == [0, 0], deadline_s=DEADLINE_S, what="the first retry")
    before = play.lanes_ends()
    play.leader.show_only(before)

    # When it fails again, and its second retry is due
    play.gate.set()
    play.wait_until_lanes_have(1, than=before)
    play.wait_until_asked()
    play.leader.show_all()

    # Then no attempt is made twice
    wait_until(lambda: 2 in play.retries, deadline_s=DEADLINE_S, what="the second retry")
    assert play.retries == [0, 1, 2]


def test_a_successor_does_not_believe_a_leader_that_stood_still(play: Play) -> None:
    first = play.start_worker()
    play.failing[0] = 1
    play.send(0)
    wait_until(lambda: play.began == [0, 0], deadline_s=DEADLINE_S, what="the first retry")
    before = play.lanes_ends()

    # Given messages that wait, and a worker that ends
    play.failing[1] = 10**6
    play.send(1, 2, 3)
    play.wait_until_lanes_have(3, than=before)
    stop(first)

    # When the next worker is shown none of them, and another message of their key comes
    play.leader.show_only(before)
    play.failing.clear()
    began = len(play.began)
    play.start_worker()
    play.send(4)
    wait_until(
        lambda: 4 in play.began or play.leader.hidden >= ANSWERS,
        deadline_s=DEADLINE_S,
        what="the worker to read on, or to ask again",
    )
    play.leader.show_all()

    play.wait_until_began(4)
    assert play.began[began:] == [1, 2, 3, 4]
