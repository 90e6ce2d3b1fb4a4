"""Kafka, or a topic of it, that is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil
from kafka.admin import ConfigResource, ConfigResourceType

from broker import EnqueueFailed
from broker.kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from dev.server import Server
from tests.chaos.arena import Arena, Worker
from tests.waiting import wait_until

#: How long Kafka is away: longer than the producers' delivery timeout, and at full size than anything's.
OUTAGE_S, FULL_OUTAGE_S = 10, 180
ENQUEUE_TIMEOUT_MS = 5_000


def test_nothing_is_lost_when_kafka_is_frozen_and_then_killed_under_load(
    arena_on: Callable[..., Arena], kafka_server: Server, size: Callable[[int, int], int]
) -> None:
    outage_s = size(OUTAGE_S, FULL_OUTAGE_S)
    play = arena_on(partitions=2, enqueue_timeout_ms=ENQUEUE_TIMEOUT_MS)
    play.send("flaky", range(10_000, 10_020), failures=1)
    play.send("work", range(200), seconds=0.02)
    worker = play.start_worker(threads=4)
    play.wait_until_started(range(1))
    sender = Sender(play, first=1_000)
    sender.start()
    processor_s, lines = processor_time_s(worker), len(worker.log_lines(""))

    kafka_server.pause()
    wait_until(lambda: sender.failed, deadline_s=30, what="a send to fail while Kafka is frozen")
    wait_until(lambda: worker.log_lines("has not answered"), deadline_s=30, what="the worker to say so")
    kafka_server.kill()
    away_since = time.monotonic()
    wait_until(lambda: time.monotonic() - away_since > outage_s, deadline_s=outage_s + 10, what="the outage")
    processor_s, lines = processor_time_s(worker) - processor_s, len(worker.log_lines("")) - lines
    kafka_server.start()
    failed_before = sender.failed
    wait_until(lambda: sender.succeeds_again(), deadline_s=60, what="sends to succeed again")
    sender.stop()

    # A send that failed may have arrived all the same; one that returned must have.
    play.wait_until_done(play.sent, deadline_s=90)
    play.balance(f"Kafka frozen, killed and away for {outage_s} s", repeats_at_most=300)
    print(f"{failed_before} sends failed; meanwhile the worker used {processor_s:.1f} s of processor and "
          f"logged {lines} lines")  # fmt: skip
    worker.check()
    # Each change once, however long it lasts.
    wait_until(
        lambda: len(worker.log_lines("has not answered")) == len(worker.log_lines("again, after")),
        deadline_s=30,
        what="the worker to say that Kafka is back",
    )
    assert len(worker.log_lines("has not answered")) < 4


def test_a_worker_waits_for_a_kafka_that_is_away_at_its_start_and_stops_when_told(
    arena_on: Callable[..., Arena], kafka_server: Server
) -> None:
    play = arena_on(partitions=2)
    kafka_server.stop()
    impatient, patient = play.start_worker(), play.start_worker()
    wait_until(
        lambda: impatient.log_lines("No Kafka server answered"), deadline_s=30, what="it to say that it waits"
    )
    impatient.ask_to_stop()
    assert impatient.wait(timeout_s=40) == 0

    kafka_server.start()
    sent = play.send("work", range(50))
    play.wait_until_done(sent, deadline_s=60)

    play.balance("Kafka away at the start", repeats_at_most=0)
    patient.check()


def test_a_delivery_is_held_while_its_dead_letter_topic_takes_nothing_also_over_a_shutdown(
    arena: Callable[..., Arena],
) -> None:
    # Who takes over within any deadline here has not waited for the session to end.
    play = arena(partitions=1, enqueue_timeout_ms=ENQUEUE_TIMEOUT_MS, session_timeout_ms=120_000)
    worker = play.start_worker(threads=4)
    play.wait_until_done(play.send("work", range(200, 201)))  # it has found its topics in order
    limit_dead_letters(play, 1)
    failing = play.send("fail", range(5))
    working = play.send("work", range(10, 60))
    play.wait_until_done(working)
    wait_until(lambda: worker.log_lines("are held until"), deadline_s=30, what="it to say what it holds")
    play.wait_until_left(len(failing))

    worker.ask_to_stop()
    assert worker.wait(timeout_s=60) == 0
    assert play.waiting() == len(failing)
    later = play.start_worker(threads=4)
    wait_until(
        lambda: later.log_lines("max.message.bytes=1,"), deadline_s=60, what="it to leave the queue alone"
    )
    limit_dead_letters(play, MAX_DEAD_LETTER_BYTES)
    play.wait_until_done(play.send("work", range(60, 100)))

    play.balance("dead-letter topic that takes nothing, and a shutdown", repeats_at_most=len(failing))
    assert play.dead_letters().keys() == failing


class Sender:
    """Sends one message after the other until it is stopped, and notes which sends returned."""

    def __init__(self, play: Arena, *, first: int) -> None:
        self._play = play
        self._next = first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failed_last = False
        self.failed = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def succeeds_again(self) -> bool:
        return not self._failed_last

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self._next += 1
            try:
                self._play.send("work", [self._next])
                self._failed_last = False
            except EnqueueFailed:
                self.failed += 1
                self._failed_last = True


def processor_time_s(worker: Worker) -> float:
    processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def limit_dead_letters(play: Arena, max_bytes: int) -> None:
    """Let the dead-letter topic take no record that is larger."""
    topic = play.broker.topics.dead_letters("work")
    with play.admin() as admin:
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(max_bytes)})]
        )
