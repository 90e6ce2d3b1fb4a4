"""What one stuck task, and many, do to the commits of their partition."""

from collections.abc import Callable

from broker.offsets.commit_metadata import MAX_METADATA_CHARS, decode
from tests.chaos.arena import Arena
from tests.waiting import wait_until

SEND_BATCH = 10_000


def test_one_stuck_record_holds_back_nothing_but_itself(
    arena: Callable[..., Arena], size: Callable[[int, int], int]
) -> None:
    records = size(10_000, 100_000)
    play = arena(partitions=1)
    gate = play.home / "gate"
    play.send("gated", [0], gate=str(gate))
    later: set[int] = set()
    for first in range(1, records + 1, SEND_BATCH):
        later |= play.send("work", range(first, min(first + SEND_BATCH, records + 1)))
    worker = play.start_worker(threads=4)
    play.wait_until_done(later, deadline_s=60 + records / 100)
    play.wait_until_left(1)

    commit = play.committed(0)
    assert commit is not None
    assert commit.offset == 0
    assert decode(0, commit.metadata).incomplete == (0,)
    print(f"\nthe commit of {records} records done above a stuck one: {commit.metadata}")
    worker.kill()
    gate.touch()
    play.start_worker(threads=4)

    play.balance(f"one stuck record and {records} later ones", repeats_at_most=1)


def test_a_partition_whose_metadata_is_full_waits_and_the_others_go_on(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=2)
    held_back = play.send("patient", range(4_000), partition=0, seconds=0.002)
    urgent = play.send("work", range(10_000, 10_300), partition=1, seconds=0.005)
    longest = 0

    def full() -> bool:
        nonlocal longest
        commit = play.committed(0)
        longest = max(longest, len(commit.metadata) if commit else 0)
        return longest > MAX_METADATA_CHARS - 100

    worker = play.start_worker(threads=4, env={"dramatiq_queue_prefetch": "100000"})
    wait_until(full, deadline_s=30, what="the commits of one partition to be full")
    play.wait_until_done(urgent)
    assert not held_back <= play.ledger.read().done.keys(), "the full partition goes on only as it is done"
    play.wait_until_done(held_back, deadline_s=60)

    play.balance("metadata at its limit", repeats_at_most=0)
    print(f"the longest metadata seen: {longest} of {MAX_METADATA_CHARS} characters")
    assert not worker.log_lines("commit failed")
