"""The broker's one clock."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

import broker
from broker.process import clock
from broker.worker.shutdown import Shutdown
from tests.broker.stopped_clock import StoppedClock


def test_the_time_left_for_a_stop_goes_by_the_clock_in_use() -> None:
    stopped = StoppedClock()
    with clock.use(stopped):
        shutdown = Shutdown()
        shutdown.begin_stopping(timeout_s=8.0)
        assert shutdown.settle_time_left_s() == 8.0
        clock.sleep(5.0)
        assert shutdown.settle_time_left_s() == 3.0
        assert not clock.wait(threading.Event(), 5.0)
        assert shutdown.settle_time_left_s() == 0.0


def test_a_replaced_clock_is_put_back_after_an_error() -> None:
    def fail() -> None:
        with clock.use(StoppedClock()):
            assert clock.wall_ms() == 1_000_000
            raise LookupError

    before_s = clock.monotonic_s()
    with pytest.raises(LookupError):
        fail()
    assert clock.monotonic_s() >= before_s
    assert clock.wall_ms() > 1_600_000_000_000


def test_no_part_of_the_broker_keeps_a_reference_to_a_function_of_the_clock() -> None:
    kept = re.compile(r"\bclock\.(monotonic_s|wall_ms|sleep|wait)\b(?!\()")
    package = Path(broker.__file__).parent
    assert [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        if path.parent.name != "testing"  # the test kit's clocks are objects of this name
        for line in path.read_text(encoding="utf-8").splitlines()
        if kept.search(line.partition("#")[0]) and path.name != "clock.py"
    ] == []


def test_the_systems_clock_waits_for_an_event_and_no_longer() -> None:
    event = threading.Event()
    assert not clock.wait(event, 0.0)
    event.set()
    assert clock.wait(event, 3_600.0)
