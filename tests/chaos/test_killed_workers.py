"""Workers that are killed at the worst moments."""

from collections.abc import Callable

from tests.chaos.arena import Arena
from tests.waiting import wait_until


def test_a_kill_with_holes_in_the_acks_repeats_only_what_was_not_done(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=2)
    gate = play.home / "gate"
    stuck = play.send("gated", range(0, 40, 10), gate=str(gate))
    quick = play.send("work", set(range(400)) - stuck)
    worker = play.start_worker(threads=8)
    play.wait_until_done(quick)
    play.wait_until_left(len(stuck))  # Kafka knows of all the others

    worker.kill()
    gate.touch()
    play.start_worker(threads=8)

    entries = play.balance("kill with holes in the acks", repeats_at_most=len(stuck))
    assert all(entries.started[number] == 2 for number in stuck), "what did not finish runs again"


def test_a_kill_after_a_retry_was_published_and_before_its_ack_runs_the_retry_anyway(
    arena: Callable[..., Arena],
) -> None:
    play = arena()
    flaky = play.send("flaky", range(20), failures=1)
    # What is finished here is not committed before the kill.
    worker = play.start_worker(threads=4, commit_interval_ms=3_600_000)
    play.wait_until_started(flaky)
    wait_until(
        lambda: play.broker.parts.delays.count("work") + len(play.ledger.read().done) == len(flaky),
        deadline_s=30,
        what="every retry to be published",
    )

    worker.kill()
    play.start_worker(threads=4)

    # The first attempt runs again and publishes its retry again, under the same message id.
    play.balance("kill between a retry and its ack", repeats_at_most=20 * 4)
