"""A long backlog and slow tasks."""

from collections.abc import Callable

from tests.chaos.arena import Arena
from tests.waiting import wait_until

SEND_BATCH = 10_000
#: What a worker may grow by while the backlog is read ahead: 256 KiB a partition, as Python objects.
GROWTH_AT_MOST = 64 * 1024 * 1024


def test_memory_stays_flat_however_much_waits(
    arena: Callable[..., Arena], size: Callable[[int, int], int]
) -> None:
    backlog, samples = size(30_000, 1_000_000), size(25, 300)
    play = arena(partitions=4)
    play.send("work", range(4), seconds=1)
    play.start_worker(threads=4, env={"CHAOS_REPORT_MEMORY": "1"})
    play.wait_until_left(0)
    before = play.ledger.read().memory[-1]

    for first in range(1_000, 1_000 + backlog, SEND_BATCH):
        play.send("work", range(first, min(first + SEND_BATCH, 1_000 + backlog)), seconds=1)
    seen = len(play.ledger.read().memory)
    wait_until(
        lambda: len(play.ledger.read().memory) > seen + samples, deadline_s=300, what="samples of its memory"
    )

    highest = max(play.ledger.read().memory)
    print(
        f"\nresident memory: {before / 2**20:.0f} MiB idle, at most {highest / 2**20:.0f} MiB with "
        f"{play.waiting()} waiting"
    )
    assert highest - before < GROWTH_AT_MOST
