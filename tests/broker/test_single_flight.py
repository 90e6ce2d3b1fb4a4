"""Many threads that need the same attempt."""

from __future__ import annotations

import _thread
import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker import KafkaUnavailable
from broker.kafka.single_flight import SingleFlight
from tests.waiting import wait_until

DEADLINE_S = 60.0
CALLERS = 8


class Interrupt(BaseException):
    """What Dramatiq raises in a worker's thread."""


class Attempt:
    """Fails as soon as it may, and counts how often it was made."""

    def __init__(self) -> None:
        self.made = 0
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.made += 1
        self.may_end.wait(DEADLINE_S)
        raise KafkaUnavailable(f"attempt {self.made} failed")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CALLERS) as threads:
        yield threads


def call(attempts: SingleFlight, attempt: Callable[[], str], patience_s: float = DEADLINE_S) -> str:
    """What came of it, as text."""
    try:
        return attempts.run(attempt, deadline_s=time.monotonic() + patience_s)
    except KafkaUnavailable as e:
        return str(e)


def test_those_who_wait_share_the_failure_of_the_attempt_that_began_after_they_asked(
    threads: ThreadPoolExecutor,
) -> None:
    attempts, attempt = SingleFlight(), Attempt()
    calls = [threads.submit(call, attempts, attempt) for _ in range(CALLERS)]
    wait_until(lambda: attempt.made, deadline_s=DEADLINE_S, what="the first attempt")
    wait_until(lambda: all(c.running() for c in calls), deadline_s=DEADLINE_S, what="all to have asked")
    attempt.may_end.set()
    outcomes = sorted(each.result(DEADLINE_S) for each in calls)
    assert outcomes[0] == "attempt 1 failed"
    assert set(outcomes[1:]) == {f"attempt {made} failed" for made in range(2, attempt.made + 1)}
    assert attempt.made < CALLERS, "each made an attempt of its own"


def test_nobody_waits_for_longer_than_its_own_deadline(threads: ThreadPoolExecutor) -> None:
    attempts, attempt = SingleFlight(), Attempt()
    first = threads.submit(call, attempts, attempt)
    wait_until(lambda: attempt.made, deadline_s=DEADLINE_S, what="the first attempt")
    assert "another thread still tries" in call(attempts, attempt, patience_s=0.05)
    assert not first.done()
    attempt.may_end.set()


def test_a_failure_is_not_that_of_who_asks_afterwards() -> None:
    attempts, attempt = SingleFlight(), Attempt()
    attempt.may_end.set()
    assert call(attempts, attempt) == "attempt 1 failed"
    assert call(attempts, attempt) == "attempt 2 failed"
    assert call(attempts, lambda: "done") == "done"


def test_an_attempt_whose_thread_was_ended_before_it_began_is_made_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, started = _thread.start_new_thread, []

    def start_the_second(function: Callable[..., object], arguments: tuple[object, ...]) -> int:
        started.append(function)
        return start(function, arguments) if len(started) == 2 else 0

    monkeypatch.setattr(_thread, "start_new_thread", start_the_second)
    assert call(SingleFlight(), lambda: "done") == "done"


def test_who_is_interrupted_leaves_the_turn_to_the_others_when_the_attempt_ends(
    threads: ThreadPoolExecutor,
) -> None:
    attempts, attempt = SingleFlight(), Attempt()
    idents: list[int] = []

    def interrupted() -> str:
        idents.append(threading.get_ident())
        try:
            return call(attempts, attempt)
        except Interrupt:
            return "interrupted"

    first = threads.submit(interrupted)
    wait_until(lambda: attempt.made, deadline_s=DEADLINE_S, what="the first attempt")
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idents[0]), ctypes.py_object(Interrupt))
    assert first.result(DEADLINE_S) == "interrupted"
    assert "another thread still tries" in call(attempts, attempt, patience_s=0.05)
    attempt.may_end.set()
    assert call(attempts, lambda: "done") == "done"


def test_nobody_waits_for_an_attempt_once_it_is_to_stop(threads: ThreadPoolExecutor) -> None:
    attempts, attempt, stop = SingleFlight(), Attempt(), threading.Event()

    def ask() -> str:
        try:
            return attempts.run(attempt, deadline_s=time.monotonic() + DEADLINE_S, unless=stop)
        except KafkaUnavailable as e:
            return str(e)

    calls = [threads.submit(ask) for _ in range(3)]
    wait_until(lambda: attempt.made, deadline_s=DEADLINE_S, what="the first attempt")
    stop.set()
    assert all("was to stop" in each.result(DEADLINE_S) for each in calls)
    assert "was to stop" in ask()
    attempt.may_end.set()
    assert attempt.made == 1
