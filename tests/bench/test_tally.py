"""What workers count is what the bench reads, whichever thread or process it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.tally import VARIABLE, Tally
from dev.stack import ROOT
from tests.waiting import wait_until

DEADLINE_S = 60.0
#: Three threads that run two tasks each and keep a number.
WORKER = """
import threading
from bench import tally
def run():
    tally.note()
    tally.sample(0.25)
threads = [threading.Thread(target=run) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path)


@pytest.fixture
def workers(tally: Tally) -> Iterator[list[subprocess.Popen[bytes]]]:
    env = {**os.environ, VARIABLE: str(tally.directory), "PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen([sys.executable, "-c", WORKER], env=env) for _ in range(2)]
    yield started
    for worker in started:
        worker.kill()
        worker.wait()


def test_nobody_finishes_a_task_before_the_gate_is_open(
    tally: Tally, workers: list[subprocess.Popen[bytes]]
) -> None:
    wait_until(lambda: tally.total().threads == 6, deadline_s=DEADLINE_S, what="all threads")
    assert tally.total().processes == 2
    assert tally.total().count == 0
    opened_at_s = tally.open_gate()
    wait_until(lambda: tally.total().count == 12, deadline_s=DEADLINE_S, what="all tasks")
    assert opened_at_s <= tally.total().last_s <= time.monotonic()


def test_what_the_tasks_keep_can_be_read(tally: Tally, workers: list[subprocess.Popen[bytes]]) -> None:
    tally.open_gate()
    for worker in workers:
        assert worker.wait(DEADLINE_S) == 0
    assert tally.samples() == [0.25] * 6
