"""The end of a process that is no child, as the system tells it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from broker.reaper.process_watch import Exit, ProcessWatch

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd")
DEADLINE_S = 30


def _program(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def test_a_watch_becomes_readable_at_the_death_and_tells_the_signal() -> None:
    with _program("import time; time.sleep(600)") as process:
        watch = ProcessWatch(process.pid)
        assert select.select([watch], [], [], 0)[0] == []
        process.kill()
        assert select.select([watch], [], [], DEADLINE_S)[0] == [watch]
        # Its parent has not asked for its end yet.
        assert watch.exit() == Exit(signal=signal.SIGKILL)
        watch.close()
    assert not watch.can_watch


def test_a_watch_tells_the_exit_code() -> None:
    with _program("raise SystemExit(7)") as process:
        watch = ProcessWatch(process.pid)
        assert select.select([watch], [], [], DEADLINE_S)[0] == [watch]
        assert watch.exit() == Exit(code=7)
        watch.close()


def test_a_process_that_has_ended_already_is_known_to_have_ended() -> None:
    with _program("") as process:
        process.wait()
    watch = ProcessWatch(process.pid)
    assert watch.has_ended
    assert not watch.can_watch


def test_a_process_of_another_namespace_cannot_be_watched() -> None:
    watch = ProcessWatch(0)
    assert not watch.can_watch
    assert not watch.has_ended


def test_the_end_of_a_process_is_a_code_or_a_signal() -> None:
    assert Exit.from_wait_status(9) == Exit(signal=9)
    assert Exit.from_wait_status(0x80 | 11) == Exit(signal=11)
    assert Exit.from_wait_status(7 << 8) == Exit(code=7)
    assert os.waitstatus_to_exitcode(7 << 8) == 7
    assert [str(end) for end in (Exit(signal=9), Exit(code=7), Exit())] == [
        "signal 9",
        "exit code 7",
        "an unknown exit code",
    ]
