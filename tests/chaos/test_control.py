"""Operators' commands to real workers, which are killed, frozen and stopped meanwhile."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from broker.control.commands import IN_FORCE_AFTER_S
from broker.control.notices import UNREADABLE_AFTER_S
from dev.server import Server
from tests.chaos.arena import NO_POISON, START_DEADLINE_S, Arena, Worker
from tests.chaos.test_keys import judge, send_keyed
from tests.waiting import wait_until

REASON = "a chaos test"
PAUSES = 3
LOAD = 150
STOP_DEADLINE_S = 40
OTHER = "other"


def worker_ids(worker: Worker) -> list[str]:
    """The ids of a command's worker processes, as their log names them."""
    found = (re.search(r"This worker's id is (\S+)\.", line) for line in worker.log_lines("worker's id"))
    return [match.group(1) for match in found if match is not None]


def pid_of(worker_id: str) -> int:
    return int(worker_id.split(":")[1])


def pause(play: Arena) -> None:
    """Pause the first queue, and return once that is in force."""
    result = play.broker.pause(play.queues[0], reason=REASON, timeout_s=IN_FORCE_AFTER_S + 5)
    assert result.in_force


def runs_of_the_paused_queue(play: Arena) -> int:
    return sum(play.ledger.read().started.values())


@contextmanager
def killing(play: Arena, workers: list[Worker], *, every_s: float) -> Iterator[None]:
    """Kill a worker process of one of the commands at intervals; supervisors start the commands again."""
    over = threading.Event()

    def kill() -> None:
        number = 0
        while not over.wait(every_s):
            ids = worker_ids(workers[number % len(workers)])
            number += 1
            if ids:
                try:
                    os.kill(pid_of(ids[-1]), signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it has just ended

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_nothing_of_a_paused_queue_begins_while_workers_are_killed_and_kafka_restarts(
    arena_on: Callable[..., Arena], kafka_server: Server
) -> None:
    # Given a load of plain, failing, delayed and ordered messages, and workers that are killed
    play = arena_on(partitions=4, **NO_POISON)
    supervisors = [play.supervise(processes=1, threads=4) for _ in range(2)]
    workers = [supervisor.worker for supervisor in supervisors]
    keyed = send_keyed(play, "in_order")
    plain = range(100_000, 100_000 + LOAD)
    flaky = range(200_000, 200_000 + LOAD // 3)
    delayed = range(300_000, 300_000 + LOAD // 3)
    play.send("work", plain, seconds=0.05)
    play.send("flaky", flaky, failures=2)
    play.broker.enqueue_many([play.message("work", number) for number in delayed], delay=2_000)
    play.sent |= set(delayed)
    play.wait_until_started_any(20)
    with killing(play, workers, every_s=4.0):
        for number in range(PAUSES):
            # When the queue is paused, workers die and start, and once Kafka restarts
            pause(play)
            begun = runs_of_the_paused_queue(play)
            boots = sum(len(worker_ids(worker)) for worker in workers)
            if number == 1:
                kafka_server.stop()
                kafka_server.start()
            wait_until(
                lambda boots=boots: sum(len(worker_ids(worker)) for worker in workers) > boots,  # type: ignore[misc]
                deadline_s=START_DEADLINE_S,
                what="another worker process",
            )
            # Then nothing of it begins
            assert runs_of_the_paused_queue(play) == begun
            assert play.broker.paused_queues().keys() == {"work"}
            play.broker.resume("work", reason=REASON)
            wait_until(
                lambda begun=begun: runs_of_the_paused_queue(play) > begun,  # type: ignore[misc]
                deadline_s=START_DEADLINE_S,
                what="runs after the resume",
            )
    # And nothing is lost or reordered
    play.balance("pauses, kills and a restart of Kafka", repeats_at_most=10_000, deadline_s=120.0)
    verdict = judge(play.ledger.path)
    ordered = [line for line in verdict.violations if int(line.split()[0]) in keyed]
    assert not ordered, ordered[:5]


# Longer, too, than the time after which a worker does without a topic of which Kafka tells nothing.
@pytest.mark.parametrize("frozen_s", [0.0, UNREADABLE_AFTER_S + 5.0])
def test_a_frozen_worker_begins_nothing_of_a_queue_that_was_paused_meanwhile(
    arena: Callable[..., Arena], frozen_s: float
) -> None:
    # Given a worker that runs a task, and has prefetched others
    play = arena(partitions=1, queues=("work", OTHER), session_timeout_ms=600_000)
    worker = play.start_worker(threads=1)
    gate = play.home / "gate"
    play.send("gated", [1], gate=str(gate))
    play.wait_until_started([1])
    play.send("work", range(2, 5))
    wait_until(lambda: worker_ids(worker), deadline_s=START_DEADLINE_S, what="its id")
    (worker_id,) = worker_ids(worker)
    # When it is frozen, and its queue is paused
    os.kill(pid_of(worker_id), signal.SIGSTOP)
    try:
        pause(play)
        gate.touch()
        time.sleep(frozen_s)
    finally:
        os.kill(pid_of(worker_id), signal.SIGCONT)
    # Then its task ends, and it begins tasks of other queues alone
    play.wait_until_done([1])
    play.send("work", [10], queue=OTHER)
    play.wait_until_done([10])
    assert play.ledger.read().started.keys() == {1, 10}
    play.broker.resume("work")
    play.wait_until_done([2, 3, 4])
    play.balance("a frozen worker", repeats_at_most=0)
    worker.stop(timeout_s=STOP_DEADLINE_S)


def test_a_quiet_worker_gives_its_work_to_another_one_and_lives_on(arena: Callable[..., Arena]) -> None:
    # Given two workers; one of them runs a task, and has prefetched others
    play = arena(partitions=2, session_timeout_ms=600_000)
    first = play.start_worker(threads=1)
    gate = play.home / "gate"
    play.send("gated", range(1, 7), gate=str(gate))
    play.wait_until_started_any(1)
    (worker_id,) = worker_ids(first)
    # When it is quiet, and its task ends
    play.broker.quiet(worker_id, reason=REASON, allow_unseen=True)
    wait_until(lambda: first.log_lines("take no more work"), deadline_s=START_DEADLINE_S, what="the command")
    second = play.start_worker(threads=4)
    gate.touch()
    # Then the other one runs the rest, and the quiet one has left the group and lives
    play.balance("a quiet worker", repeats_at_most=0)
    processes = play.ledger.read().processes
    by_first = [number for number, pids in processes.items() if pids == [pid_of(worker_id)]]
    assert len(by_first) == 1
    assert first.log_lines("has left the group of 'work'")
    wait_until(lambda: len(play.owners()) == 1, deadline_s=START_DEADLINE_S, what="one member")
    assert first.is_running
    first.stop(timeout_s=STOP_DEADLINE_S)
    second.stop(timeout_s=STOP_DEADLINE_S)


def test_a_stopped_worker_ends_in_good_order_and_its_command_with_it(arena: Callable[..., Arena]) -> None:
    # Given a command of two worker processes
    play = arena(partitions=2)
    worker = play.start_worker(processes=2, threads=2)
    play.send("work", range(40), seconds=0.1)
    play.wait_until_started_any(4)
    wait_until(lambda: len(play.broker.workers()) == 2, deadline_s=START_DEADLINE_S, what="two reports")
    # When one of them is stopped
    play.broker.stop(worker_ids(worker)[0], reason=REASON)
    # Then both end, and none of their tasks runs again
    assert worker.wait(STOP_DEADLINE_S) is not None
    wait_until(lambda: not play.owners(), deadline_s=START_DEADLINE_S, what="no members")
    successor = play.start_worker()
    play.balance("a stopped worker", repeats_at_most=0)
    successor.stop(timeout_s=STOP_DEADLINE_S)
