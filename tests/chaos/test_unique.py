"""The owner of a unique key is killed, or frozen and continued, at each step of a unique message."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.arena import NO_POISON, SESSION_TIMEOUT_MS, Arena
from tests.waiting import wait_until

NEVER_MS = 3_600_000
STEPS = ["mark-before", "mark-after", "running", "complete"]
BACKLOG = range(300)
BETWEEN = range(300, 330)
HOLDER, DUPLICATES = 1_000, range(1_001, 1_100)
LATER = 2_000


def send_unique(play: Arena, numbers: list[int], unique: str) -> None:
    options = {"unique_key": "a", "unique": unique}
    play.broker.enqueue_many([play.message("unique", number).copy(options=options) for number in numbers])


@pytest.mark.parametrize("unique", ["until_started", "until_done"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize("step", STEPS)
def test_no_duplicate_runs_and_no_key_stays_locked_when_its_owner_is_stopped(
    arena: Callable[..., Arena], step: str, number: signal.Signals, unique: str
) -> None:
    # Given a hundred messages of one key behind a backlog, of which the owner has committed nothing
    play = arena(partitions=1, **NO_POISON)
    play.send("work", BACKLOG)
    # And slow ones without a key between them, so that duplicates are unread when the key is freed.
    send_unique(play, [HOLDER], unique)
    play.send("work", BETWEEN, seconds=0.05)
    send_unique(play, [*DUPLICATES], unique)
    marker = play.home / "stopped"
    stop_at = {"step": step, "signal_number": int(number), "marker": str(marker)}
    env = {"CHAOS_STOP_AT": json.dumps(stop_at)}
    # When the owner is stopped at a step
    owner = play.worker(threads=1, env=env, commit_interval_ms=NEVER_MS)
    owner.start()
    wait_until(marker.exists, deadline_s=60, what=f"the owner to reach {step!r}")
    # And another worker takes over
    heir = play.start_worker(threads=2, env=env)
    play.wait_until_done([*BACKLOG, *BETWEEN, HOLDER], deadline_s=60 + SESSION_TIMEOUT_MS / 1000)
    wait_until(lambda: play.waiting() == 0, deadline_s=60, what="the duplicates to be complete")
    # And the frozen one continues
    if number == signal.SIGSTOP:
        os.kill(int(Path(marker).read_text(encoding="ascii")), signal.SIGCONT)
    send_unique(play, [LATER], unique)
    play.wait_until_done([LATER], deadline_s=60)
    wait_until(lambda: play.waiting() == 0, deadline_s=60, what="nothing to be left")
    owner.kill()
    heir.stop(timeout_s=30)
    # Then no duplicate has run, and the key was free for the next message
    ran = {number for number in play.ledger.read().started if number >= HOLDER}
    assert ran == {HOLDER, LATER}
    assert play.dead_letters() == {}
