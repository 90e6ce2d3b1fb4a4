"""Workers that are told to stop."""

from collections.abc import Callable

from dev.server import Server
from tests.chaos.arena import Arena

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


def test_a_worker_stops_while_kafka_is_frozen(arena_on: Callable[..., Arena], kafka_server: Server) -> None:
    play = arena_on(queues=("work", "mail"), partitions=2, enqueue_timeout_ms=3_000)
    sent = play.send("flaky", range(20), failures=1) | play.send("work", range(100, 150), queue="mail")
    worker = play.start_worker(threads=4)
    play.wait_until_started(sent)

    kafka_server.pause()
    worker.ask_to_stop()
    assert worker.wait(timeout_s=90) == 0
    kafka_server.resume()
    play.start_worker(threads=4)

    play.balance("SIGTERM while Kafka is frozen", repeats_at_most=200, deadline_s=90)
