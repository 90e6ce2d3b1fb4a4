"""What becomes of a queue whose log lost its tail in an unclean election, and grew past its old end again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker
from kafka.structs import OffsetAndMetadata, TopicPartition

from broker import KafkaBroker
from broker.dead_letters.topic_log import DeadLetterTopic
from dev.apache_kafka import ApacheKafkaCluster
from tests.chaos.arena import Arena
from tests.cluster.truncation import FragileTopics
from tests.waiting import wait_until

QUEUE = "work"
DEADLINE_S = 60.0
#: Longer than any test.
LONG_MS = 3_600_000


class Station:
    """Brokers and workers on one namespace; ``runs`` counts how often each number has run."""

    def __init__(self, cluster: ApacheKafkaCluster, namespace: str, home: Path, closing: ExitStack) -> None:
        self.namespace = namespace
        self.runs: Counter[int] = Counter()
        self.release = threading.Event()
        #: The keys whose messages succeed.
        self.open: set[str] = set()
        self._cluster = cluster
        self._home = home
        self._closing = closing
        self._lock = threading.Lock()
        self.broker = self.new_broker()

    def new_broker(self, **options: Any) -> KafkaBroker:
        broker = KafkaBroker(
            self._cluster.address,
            namespace=self.namespace,
            group_id=f"{self.namespace}workers",
            replication_factor=2,
            partitions=1,
            session_timeout_ms=6_000,
            enqueue_timeout_ms=30_000,
            **{"delay_index_dir": str(self._home), **options},
        )

        @dramatiq.actor(actor_name="note", queue_name=QUEUE, max_retries=0, broker=broker)
        def note(number: int) -> None:
            with self._lock:
                self.runs[number] += 1

        @dramatiq.actor(
            actor_name="hold", queue_name=QUEUE, max_retries=0, time_limit=float("inf"), broker=broker
        )
        def hold(number: int) -> None:
            self.release.wait(300)
            with self._lock:
                self.runs[number] += 1

        @dramatiq.actor(
            actor_name="in_turn", queue_name=QUEUE, max_retries=1_000, min_backoff=500, max_backoff=500,
            key_order="ordered", broker=broker,
        )  # fmt: skip
        def in_turn(number: int, key: str) -> None:
            if key not in self.open:
                raise ConnectionError(f"{key} is not open")
            with self._lock:
                self.runs[number] += 1

        self._closing.callback(broker.close)
        return broker

    def send_keyed(self, numbers: range, key: str) -> None:
        """Send messages of one key. Until it is opened, they wait in the lanes topic."""
        sender = self.new_broker()
        in_turn = sender.actors["in_turn"]
        sender.enqueue_many(
            [in_turn.message_with_options(args=(number, key), partition_key=key) for number in numbers]
        )

    def start_worker(self, **options: Any) -> Worker:
        """Start a worker that shares nothing but its disk with those before it."""
        worker = Worker(self.new_broker(**options), worker_timeout=100, worker_threads=4)
        worker.start()
        self._closing.callback(lambda: worker.stop() if any(w.is_alive() for w in worker.workers) else None)
        return worker

    def send(self, numbers: range, *, actor: str = "note", delay: int | None = None) -> None:
        """Send with a producer of its own: an idempotent one is refused once the log lost what it sent."""
        sender = self.new_broker()
        sender.enqueue_many([sender.actors[actor].message(number) for number in numbers], delay=delay)

    def wait_until_run(self, numbers: range) -> None:
        wait_until(
            lambda: all(self.runs[number] for number in numbers),
            deadline_s=DEADLINE_S,
            what=f"{numbers} to have run",
        )

    def wait_until_left(self, count: int) -> None:
        broker = self.broker
        wait_until(lambda: broker.count(QUEUE) == count, deadline_s=DEADLINE_S, what=f"{count} to be left")


@pytest.fixture
def station(kafka_cluster: ApacheKafkaCluster, namespace: str, tmp_path: Path) -> Iterator[Station]:
    with ExitStack() as closing:
        yield Station(kafka_cluster, namespace, tmp_path, closing)


def errors_about(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "ERROR" and text in r.getMessage()]


def test_after_a_truncation_a_restarted_worker_runs_all_that_is_new_and_nothing_old(
    station: Station, kafka_cluster: ApacheKafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a queue of which a worker has done 300 tasks, and 50 more that only one node had
    topics = FragileTopics(kafka_cluster, {f"{station.namespace}{QUEUE}": {}})
    worker = station.start_worker()
    station.send(range(300))
    station.wait_until_run(range(300))
    topics.leave_the_follower_behind()
    station.send(range(300, 350))
    station.wait_until_run(range(350))
    station.wait_until_left(0)
    worker.stop()

    # When that node is lost, and more is sent than it took with it
    topics.elect_the_follower()
    station.send(range(1000, 1060))

    # Then all of that counts as left, and runs, and nothing runs again
    assert station.broker.count(QUEUE) == 60
    station.start_worker()
    station.wait_until_run(range(1000, 1060))
    station.wait_until_left(0)
    assert set(station.runs.values()) == {1}
    (line,) = errors_about(caplog, "lost its tail")
    assert "50 record(s)" in line


def test_after_a_truncation_a_live_worker_runs_all_that_is_new_and_nothing_old(
    station: Station, kafka_cluster: ApacheKafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a live worker with one task that runs all the time, below and above what will be lost
    topics = FragileTopics(kafka_cluster, {f"{station.namespace}{QUEUE}": {}})
    station.start_worker()
    station.send(range(1), actor="hold")
    station.send(range(1, 300))
    station.wait_until_run(range(1, 300))
    topics.leave_the_follower_behind()
    station.send(range(300, 350))
    station.wait_until_run(range(300, 350))
    station.wait_until_left(1)

    # When the log loses its tail, and more is sent than it has lost
    topics.elect_the_follower()
    station.send(range(1000, 1060))

    # Then all of that runs, and what ran on is completed where it is
    station.wait_until_run(range(1000, 1060))
    station.wait_until_left(1)
    station.release.set()
    station.wait_until_run(range(1))
    station.wait_until_left(0)
    assert set(station.runs.values()) == {1}
    (line,) = errors_about(caplog, "lost its tail")
    assert "50 record(s)" in line


def test_after_a_truncation_a_live_worker_commits_the_epoch_of_what_is_left_before_it_delivers_anything(
    station: Station, kafka_cluster: ApacheKafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    topic = f"{station.namespace}{QUEUE}"
    topics = FragileTopics(kafka_cluster, {topic: {}})
    broker = station.start_worker().broker
    assert isinstance(broker, KafkaBroker)
    station.send(range(100))
    station.wait_until_run(range(100))
    topics.leave_the_follower_behind()
    station.send(range(100, 150))
    station.wait_until_run(range(100, 150))
    station.wait_until_left(0)
    before = committed(station, topic)
    broker.consumption_paused = True

    topics.elect_the_follower()
    station.send(range(1000, 1060))
    wait_until(
        lambda: errors_about(caplog, "lost its tail"), deadline_s=DEADLINE_S, what="the worker to notice"
    )

    wait_until(
        lambda: committed(station, topic).offset == 100,
        deadline_s=DEADLINE_S,
        what="a commit of what is left",
    )
    assert 0 <= committed(station, topic).leader_epoch <= before.leader_epoch
    broker.consumption_paused = False
    station.wait_until_run(range(1000, 1060))
    station.wait_until_left(0)
    assert set(station.runs.values()) == {1}


def committed(station: Station, topic: str, group: str | None = None) -> OffsetAndMetadata:
    broker = station.broker
    group = group or broker.parts.group_of(QUEUE)
    with closing(broker.parts.clients.consumer(group_id=group)) as kafka:
        partition = TopicPartition(topic, 0)
        found = kafka.committed_offsets([partition]).get(partition)
    return found or OffsetAndMetadata(-1, "", -1)


def test_after_a_truncation_a_worker_goes_on_from_the_holes_that_a_killed_one_left(
    kafka_cluster: ApacheKafkaCluster, tmp_path: Path
) -> None:
    # Given a worker that was killed with one task at the beginning of the log undone, and others at its end
    play = Arena(kafka_cluster.address, tmp_path, partitions=1, replication_factor=2)
    topics = FragileTopics(kafka_cluster, {play.topic(): {}})
    gate = tmp_path / "gate"
    with closing(play):
        worker = play.start_worker(threads=4)
        play.wait_until_started(play.send("gated", [0], gate=str(gate)))
        play.wait_until_done(play.send("work", range(1, 100)))
        topics.leave_the_follower_behind()
        play.wait_until_started(play.send("gated", [100], gate=str(gate)))
        play.wait_until_done(play.send("work", range(101, 120)))
        play.wait_until_left(2)
        worker.kill()

        # When the log loses its tail, and more is sent than it has lost
        topics.elect_the_follower()
        gate.touch()
        lost, play.sent = {100}, play.sent - {100}
        new = range(1000, 1060)
        with closing(Arena(kafka_cluster.address, tmp_path, namespace=play.settings["namespace"])) as sender:
            play.sent |= sender.send("work", new)
        worker = play.start_worker(threads=4)

        # Then the new messages run and the one that was left undone, and nothing else
        play.wait_until_done({0, *new})
        entries = play.balance("a truncation below the holes", repeats_at_most=1)
        assert entries.started[0] == 2
        assert not lost & entries.done.keys()
        (line,) = worker.log_lines("lost its tail")
        assert "20 record(s) that were read are gone, 1 of them not done" in line


def test_after_a_truncation_of_the_delayed_topic_all_that_is_new_runs_and_nothing_old(
    station: Station, kafka_cluster: ApacheKafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    # Given delays that were forwarded, whose tombstones only one node has, and some that only it has at all
    delayed = f"{station.namespace}delayed"
    topics = FragileTopics(kafka_cluster, {delayed: {"cleanup.policy": "compact"}})
    station.send(range(20), delay=LONG_MS)
    station.send(range(100, 120), delay=1)
    topics.leave_the_follower_behind()
    worker = station.start_worker()
    station.wait_until_run(range(100, 120))
    station.send(range(200, 205), delay=LONG_MS)
    wait_until(
        lambda: station.broker.parts.delays.count(QUEUE) == 25, deadline_s=DEADLINE_S, what="25 to wait"
    )
    station.wait_until_left(25)
    worker.stop()

    # When that node is lost, and more is delayed than it took with it
    topics.elect_the_follower()
    station.send(range(1000, 1100), delay=1)
    assert station.broker.parts.delays.count(QUEUE) >= 120
    station.start_worker()

    # Then all of that runs, what still waits waits on, and nothing runs again
    station.wait_until_run(range(1000, 1100))
    station.wait_until_left(20)
    assert set(station.runs.values()) == {1}
    assert errors_about(caplog, "5 delayed message(s) were lost with its tail")


def test_after_a_truncation_of_the_delayed_topic_a_forwarder_on_another_disk_says_what_may_run_again(
    station: Station, kafka_cluster: ApacheKafkaCluster, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    # Given delays that were forwarded, whose tombstones only one node has
    delayed = f"{station.namespace}delayed"
    topics = FragileTopics(kafka_cluster, {delayed: {"cleanup.policy": "compact"}})
    station.send(range(20), delay=1)
    topics.leave_the_follower_behind()
    worker = station.start_worker()
    station.wait_until_run(range(20))
    station.wait_until_left(0)
    wait_until(
        lambda: committed(station, delayed, group=f"{delayed}.forwarders").offset >= 40,
        deadline_s=DEADLINE_S,
        what="the forwarder's commit",
    )
    worker.stop()

    # When that node is lost, and the next forwarder has another disk
    topics.elect_the_follower()
    station.start_worker(delay_index_dir=str(tmp_path / "another"))

    # Then it cannot know what was forwarded, and says so
    wait_until(
        lambda: errors_about(caplog, "messages whose tombstones are lost may run again"),
        deadline_s=DEADLINE_S,
        what="an error",
    )
    (line,) = errors_about(caplog, "messages whose tombstones are lost may run again")
    assert f"{delayed}[0] has lost its tail" in line
    assert "20 record(s)" in line or "21 record(s)" in line  # the second is the mark of the first forwarder


def test_after_a_truncation_of_the_delayed_topic_a_live_forwarder_runs_all_that_is_new_and_nothing_old(
    station: Station, kafka_cluster: ApacheKafkaCluster
) -> None:
    delayed = f"{station.namespace}delayed"
    topics = FragileTopics(kafka_cluster, {delayed: {"cleanup.policy": "compact"}})
    station.send(range(20), delay=LONG_MS)
    station.send(range(100, 120), delay=1)
    topics.leave_the_follower_behind()
    station.start_worker()
    station.wait_until_run(range(100, 120))
    station.wait_until_left(20)

    topics.elect_the_follower()
    station.send(range(1000, 1100), delay=1)

    station.wait_until_run(range(1000, 1100))
    station.wait_until_left(20)
    assert set(station.runs.values()) == {1}


def test_after_a_truncation_of_the_lanes_topic_all_that_waits_runs_and_nothing_old(
    station: Station, kafka_cluster: ApacheKafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    # Given keyed messages whose end only one node knows of, and others that wait on that node alone
    topics = FragileTopics(
        kafka_cluster, {f"{station.namespace}{QUEUE}_lanes": {"cleanup.policy": "compact"}}
    )
    worker = station.start_worker()
    station.send_keyed(range(5), "first")
    wait_until(lambda: waiting_in_lanes(station) == 5, deadline_s=DEADLINE_S, what="5 to wait")
    topics.leave_the_follower_behind()
    station.send_keyed(range(10, 15), "second")
    wait_until(lambda: waiting_in_lanes(station) == 10, deadline_s=DEADLINE_S, what="10 to wait")
    station.open.add("first")
    station.wait_until_run(range(5))
    wait_until(lambda: waiting_in_lanes(station) == 5, deadline_s=DEADLINE_S, what="5 to be done")

    # When that node is lost, and more comes to wait than it took with it
    topics.elect_the_follower()
    station.send_keyed(range(100, 160), "third")
    wait_until(lambda: waiting_in_lanes(station) == 65, deadline_s=DEADLINE_S, what="all to wait")
    station.open |= {"second", "third"}

    # Then the live worker runs all that waits, and another one after it finds nothing left to run
    station.wait_until_run(range(10, 15))
    station.wait_until_run(range(100, 160))
    station.wait_until_left(0)
    worker.stop()
    station.start_worker()
    station.send_keyed(range(200, 201), "first")
    station.wait_until_run(range(200, 201))
    station.wait_until_left(0)
    assert set(station.runs.values()) == {1}
    assert errors_about(caplog, "the tombstones of 5 completed one(s)")


def test_after_a_truncation_of_the_lanes_topic_between_two_workers_all_that_waits_runs_and_nothing_old(
    station: Station, kafka_cluster: ApacheKafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker that was stopped: of one key only one node knows that it is done, and another one's
    # messages wait on that node alone
    topics = FragileTopics(kafka_cluster, {lanes_of(station): {"cleanup.policy": "compact"}})
    worker = station.start_worker()
    station.send_keyed(range(10), "first")
    wait_until(lambda: waiting_in_lanes(station) == 10, deadline_s=DEADLINE_S, what="10 to wait")
    topics.leave_the_follower_behind()
    station.send_keyed(range(20, 26), "second")
    wait_until(lambda: waiting_in_lanes(station) == 16, deadline_s=DEADLINE_S, what="16 to wait")
    station.open.add("first")
    station.wait_until_run(range(10))
    wait_until(lambda: waiting_in_lanes(station) == 6, deadline_s=DEADLINE_S, what="10 to be done")
    worker.stop()
    # A requeue record counts beside the message that waits, and the worker may have sent one for each.
    left = station.broker.count(QUEUE)
    assert 6 <= left <= 12

    # When that node is lost, and more is sent
    topics.elect_the_follower()
    station.send_keyed(range(40, 46), "first")

    # Then what is left counts, and the next worker runs it, and nothing that is done
    station.wait_until_left(left + 6)  # more, until the counting client has heard of the election
    station.open.add("second")
    station.start_worker()
    station.wait_until_run(range(20, 26))
    station.wait_until_run(range(40, 46))
    station.wait_until_left(0)
    assert set(station.runs.values()) == {1}
    (line,) = errors_about(caplog, "from the queue's own records")
    assert "the records of 6 waiting message(s) were written again" in line
    assert "the tombstones of 10 completed one(s)" in line


def test_an_idle_worker_notices_that_the_lanes_topic_has_lost_its_tail(
    station: Station, kafka_cluster: ApacheKafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a worker with nothing to do, and keyed messages of which only one node knows that they are done
    topics = FragileTopics(kafka_cluster, {lanes_of(station): {"cleanup.policy": "compact"}})
    worker = station.start_worker()
    station.send_keyed(range(10), "first")
    wait_until(lambda: waiting_in_lanes(station) == 10, deadline_s=DEADLINE_S, what="10 to wait")
    topics.leave_the_follower_behind()
    station.open.add("first")
    station.wait_until_run(range(10))
    station.wait_until_left(0)

    # When that node is lost
    topics.elect_the_follower()

    # Then the worker notes again what is done, and nobody runs it again
    wait_until(
        lambda: errors_about(caplog, "the tombstones of 10 completed one(s)"),
        deadline_s=DEADLINE_S,
        what="the worker to notice",
    )
    station.wait_until_left(0)
    worker.stop()
    station.start_worker()
    station.send_keyed(range(200, 201), "first")
    station.wait_until_run(range(200, 201))
    station.wait_until_left(0)
    assert set(station.runs.values()) == {1}


def lanes_of(station: Station) -> str:
    return f"{station.namespace}{QUEUE}_lanes"


def waiting_in_lanes(station: Station) -> int:
    """How many messages wait in the lanes topic, as anybody sees it who reads it now."""
    with DeadLetterTopic(station.broker.parts.clients, f"{station.namespace}{QUEUE}_lanes") as log:
        last = {record.key: record.value for record in log.records(0)}
    return sum(value is not None for value in last.values())
