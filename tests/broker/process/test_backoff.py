"""The pauses between the attempts of an operation that fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.process import clock
from broker.process.backoff import Backoff
from tests.broker.stopped_clock import StoppedClock


@pytest.fixture
def stopped() -> Iterator[StoppedClock]:
    with clock.use(stopped := StoppedClock()):
        yield stopped


def test_a_backoff_allows_the_first_attempt_at_once(stopped: StoppedClock) -> None:
    backoff = Backoff(0.5)
    assert (backoff.is_over, backoff.remaining_s, backoff.has_failed) == (True, 0.0, False)


def test_each_failure_in_a_row_doubles_the_pause_up_to_the_longest(stopped: StoppedClock) -> None:
    backoff = Backoff(0.25, 5.0)
    assert [backoff.fail() for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_backoff_without_a_longest_pause_keeps_its_first(stopped: StoppedClock) -> None:
    backoff = Backoff(0.5)
    assert [backoff.fail() for _ in range(3)] == [0.5, 0.5, 0.5]


def test_a_pause_ends_after_its_length(stopped: StoppedClock) -> None:
    backoff = Backoff(2.0)
    backoff.fail()
    stopped.sleep(1.5)
    assert (backoff.is_over, backoff.remaining_s) == (False, 0.5)
    stopped.sleep(0.5)
    assert (backoff.is_over, backoff.remaining_s) == (True, 0.0)
    assert backoff.has_failed


def test_a_success_ends_the_pause_and_the_next_one_is_the_first_again(stopped: StoppedClock) -> None:
    backoff = Backoff(0.1, 5.0)
    backoff.fail()
    backoff.fail()
    backoff.reset()
    assert (backoff.is_over, backoff.has_failed) == (True, False)
    assert backoff.fail() == 0.1


def test_jitter_makes_each_pause_random_below_its_length(stopped: StoppedClock) -> None:
    backoffs = [Backoff(0.5, 1.0, jitter=True) for _ in range(200)]
    first, second = [b.fail() for b in backoffs], [b.fail() for b in backoffs]
    assert len(set(first)) > 100
    assert 0.0 <= min(first) <= max(first) <= 0.5
    assert 0.5 < max(second) <= 1.0
    assert [b.remaining_s for b in backoffs] == pytest.approx(second)


def test_a_backoff_without_pauses_still_notes_that_the_last_attempt_failed(stopped: StoppedClock) -> None:
    backoff = Backoff(0.0, 0.0)
    backoff.fail()
    assert (backoff.is_over, backoff.has_failed) == (True, True)
