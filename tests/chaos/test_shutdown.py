"""Workers that are told to stop."""

from collections.abc import Callable

import pytest

from dev.server import Server
from tests.chaos.arena import Arena, Worker
from tests.waiting import wait_until

#: Nobody waits that long here: who takes over sooner has not waited for the session to end.
SESSION_TIMEOUT_MS = 120_000


def test_a_stopping_worker_finishes_what_runs_and_the_next_owner_starts_at_once(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=2, session_timeout_ms=SESSION_TIMEOUT_MS, commit_interval_ms=3_600_000)
    sent = play.send("work", range(300), seconds=0.2)
    first = play.start_worker(threads=4)
    play.wait_until_started(range(1))

    first.ask_to_stop()
    assert first.wait(timeout_s=60) == 0
    entries = play.ledger.read()
    assert entries.started.keys() == entries.done.keys(), "what runs is finished"
    done_by_the_first = len(entries.done)
    play.start_worker(threads=16)

    play.wait_until_done(sent, deadline_s=60)
    # Nothing was committed on an interval: all that the second worker knows, the first said in parting.
    assert play.ledger.read().repeats == 0
    print(f"\nSIGTERM: {done_by_the_first} of {len(sent)} done by the first worker, none repeated")


@pytest.mark.parametrize("stopping", [False, True], ids=["at once", "while it waits for its tasks"])
def test_a_second_sigterm_repeats_nothing_that_is_done_and_the_next_owner_starts_at_once(
    arena: Callable[..., Arena], stopping: bool
) -> None:
    play = arena(
        queues=("work", "mail"),
        partitions=2,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        # Nothing is committed on an interval.
        commit_interval_ms=3_600_000,
    )
    gates = [play.home / "a while", play.home / "for ever"]
    done = play.send("work", range(100)) | play.send("work", range(100, 200), queue="mail")
    stuck = play.send("gated", range(1_000, 1_002), gate=str(gates[1]))
    last = play.send("gated", range(2_000, 2_002), gate=str(gates[0]))
    first = play.start_worker(threads=6)
    play.wait_until_done(done)
    play.wait_until_started(stuck | last)

    first.ask_to_stop()
    wait_until_it_says(first, "Stopping worker process")  # two signals at once would be one
    if stopping:
        wait_until_it_says(first, "Shutting down")
        gates[0].touch()
        play.wait_until_done(last)
    first.ask_to_stop()
    assert first.wait(timeout_s=20) != 0, "it was killed"
    for gate in gates:
        gate.touch()
    play.start_worker(threads=6, commit_interval_ms=250)

    unfinished = stuck if stopping else stuck | last
    play.balance("a second SIGTERM", repeats_at_most=len(unfinished))


def wait_until_it_says(worker: Worker, text: str) -> None:
    wait_until(lambda: worker.log_lines(text), deadline_s=30, what=f"{worker.name} to say {text!r}")


def test_a_worker_stops_while_kafka_is_frozen(arena_on: Callable[..., Arena], kafka_server: Server) -> None:
    play = arena_on(queues=("work", "mail"), partitions=2, enqueue_timeout_ms=5_000)
    sent = play.send("flaky", range(20), failures=1) | play.send("work", range(100, 150), queue="mail")
    worker = play.start_worker(threads=4)
    play.wait_until_started(sent)

    kafka_server.pause()
    worker.ask_to_stop()
    assert worker.wait(timeout_s=90) == 0
    kafka_server.resume()
    play.start_worker(threads=4)

    play.balance("SIGTERM while Kafka is frozen", repeats_at_most=200, deadline_s=90)


def test_a_worker_of_many_queues_waits_for_a_frozen_kafka_once(
    arena_on: Callable[..., Arena], kafka_server: Server
) -> None:
    play = arena_on(queues=("work", *(f"queue{number}" for number in range(11))), partitions=1)
    sent = play.send("work", range(12))
    for number, queue in enumerate(play.queues):
        sent |= play.send("work", [100 + number], queue=queue)
    worker = play.start_worker(threads=4)
    play.wait_until_done(sent)  # so each of its queues has a partition

    kafka_server.pause()
    worker.ask_to_stop()
    assert worker.wait(timeout_s=50) == 0, "5 s for each of its queues would be a minute"
    kafka_server.resume()
    play.start_worker(threads=4)

    play.balance("SIGTERM of many queues while Kafka is frozen", repeats_at_most=len(sent), deadline_s=90)
