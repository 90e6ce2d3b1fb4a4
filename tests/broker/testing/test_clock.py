"""The clock of the test kit."""

from __future__ import annotations

import threading

from broker.testing import ManualClock


def test_a_wait_reaches_a_deadline_that_is_closer_than_a_microsecond() -> None:
    clock = ManualClock()
    until_s = clock.monotonic_s() + 4e-7
    rounds = 0
    while (left_s := until_s - clock.monotonic_s()) > 0 and rounds < 100:
        clock.wait(threading.Event(), left_s)
        rounds += 1
    assert rounds < 100
