"""A policy asked once for each failed attempt says what it says in one process that makes them all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import tenacity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tenacity import RetryCallState, RetryError, Retrying, TryAgain

from broker.retries.decision import Again, GiveUp, call_state, decide
from tests.examples import examples


class Clock:
    """What tenacity takes for the time module."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@dataclass
class Run:
    """What happened: the state at each of the policy's callbacks, and the end."""

    clock: Clock = field(default_factory=Clock)
    seen: list[tuple[Any, ...]] = field(default_factory=list)
    end: str = "returned"

    def observe(self, name: str) -> Any:
        def callback(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            since = state.seconds_since_start
            self.seen.append((name, state.attempt_number, since, state.idle_for, state.upcoming_sleep, error))

        return callback


@dataclass(frozen=True)
class Attempt:
    """How long it takes, in seconds, and what it raises."""

    takes_s: float
    error: Exception


class Slow(OSError):
    retry_after_s = 2.5


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


ERRORS = [
    ValueError("text"), OSError("gone"), Slow("later"), TryAgain(), KeyError("text"),
    _caused(RuntimeError("outer"), OSError("inner")),
]  # fmt: skip
#: Sums of halves and quarters are exact, so a limit that is met exactly is met in both runs.
seconds = st.integers(0, 40).map(lambda quarters: quarters / 4)
attempts = st.lists(st.builds(Attempt, seconds, st.sampled_from(ERRORS)), max_size=8)

stops = st.recursive(
    st.one_of(
        st.integers(1, 8).map(tenacity.stop_after_attempt),
        seconds.map(tenacity.stop_after_delay),
        seconds.map(tenacity.stop_before_delay),
        st.just(tenacity.stop_never),
        st.just(lambda state: state.idle_for > 10),
    ),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([tenacity.stop_any(*parts), tenacity.stop_all(*parts)])
    ),
    max_leaves=4,
)
waits = st.recursive(
    st.one_of(
        seconds.map(tenacity.wait_fixed),
        st.just(tenacity.wait_none()),
        st.builds(tenacity.wait_random, seconds, seconds),
        st.builds(tenacity.wait_incrementing, seconds, seconds, seconds),
        st.builds(
            tenacity.wait_exponential, st.integers(0, 3), st.integers(1, 60), st.integers(2, 3), seconds
        ),
        st.builds(tenacity.wait_random_exponential, st.integers(0, 3), st.integers(1, 60)),
        st.builds(tenacity.wait_exponential_jitter, max=st.integers(1, 60), jitter=seconds),
        st.just(tenacity.wait_exception(lambda error: getattr(error, "retry_after_s", 0.5))),
        st.just(lambda retry_state: retry_state.idle_for + (retry_state.seconds_since_start or 0) / 4),
    ),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([tenacity.wait_chain(*parts), tenacity.wait_combine(*parts)])
    ),
    max_leaves=4,
)
predicates = st.recursive(
    st.one_of(
        st.just(tenacity.retry_if_exception_type()),
        st.just(tenacity.retry_if_exception_type((OSError, KeyError))),
        st.just(tenacity.retry_if_not_exception_type(ValueError)),
        st.just(tenacity.retry_if_exception_cause_type(OSError)),
        st.just(tenacity.retry_if_exception_message(match="text")),
        st.just(tenacity.retry_if_exception(lambda error: "e" in str(error))),
        st.just(tenacity.retry_never),
        st.just(lambda state: state.attempt_number < 4 and state.outcome.failed),
    ),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([tenacity.retry_any(*parts), tenacity.retry_all(*parts)])
    ),
    max_leaves=4,
)


@dataclass(frozen=True)
class Policy:
    stop: Any
    wait: Any
    retry: Any
    reraise: bool

    def build(self, run: Run, **more: Any) -> Retrying:
        callbacks = {name: run.observe(name) for name in ("before", "after", "before_sleep")}
        return Retrying(
            stop=self.stop, wait=self.wait, retry=self.retry, reraise=self.reraise, **callbacks, **more
        )


def in_one_process(policy: Policy, attempts: Sequence[Attempt], patch: pytest.MonkeyPatch) -> Run:
    run = Run()
    patch.setattr(tenacity, "time", run.clock)
    left = iter(attempts)

    def sleep(wait_s: float) -> None:
        run.seen.append(("slept", wait_s))
        run.clock.now_s += wait_s

    def task() -> None:
        if (attempt := next(left, None)) is not None:
            run.clock.now_s += attempt.takes_s
            raise attempt.error

    try:
        policy.build(run, sleep=sleep)(task)
    except RetryError:
        run.end = "stopped"
    except Exception:  # noqa: BLE001 - whatever the attempt raised
        run.end = "raised"
    return run


def one_step_at_a_time(policy: Policy, attempts: Sequence[Attempt], patch: pytest.MonkeyPatch) -> Run:
    """As the middleware does it: nothing is kept between two steps but the count and the sum of the waits."""
    run = Run()
    patch.setattr(tenacity, "time", run.clock)
    idle_for_s = 0.0

    def state_of(attempt_number: int, error: Exception | None) -> tuple[Retrying, RetryCallState]:
        step = policy.build(run).copy()
        age_s, kept = run.clock.now_s, idle_for_s
        state = call_state(
            step,
            lambda: None,
            (),
            {},
            attempt_number=attempt_number,
            age_s=age_s,
            idle_for_s=kept,
            error=error,
        )
        return step, state

    for number, attempt in enumerate([*attempts, None], start=1):
        step, state = state_of(number, None)
        step.before(state)
        if attempt is None:
            return run
        run.clock.now_s += attempt.takes_s
        traceback = attempt.error.__traceback__
        decision = decide(*state_of(number, attempt.error))
        assert attempt.error.__traceback__ is traceback
        if isinstance(decision, GiveUp):
            run.end = "stopped" if decision is GiveUp.STOPPED and not policy.reraise else "raised"
            return run
        assert isinstance(decision, Again)
        run.seen.append(("slept", decision.wait_s))
        run.clock.now_s += decision.wait_s
        idle_for_s = decision.idle_for_s
    raise AssertionError("the loop returns")


@settings(max_examples=examples(500), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    policy=st.builds(Policy, stops, waits, predicates, st.booleans()), attempts=attempts, seed=st.integers()
)
def test_any_policy_decides_as_it_does_in_one_process(
    monkeypatch: pytest.MonkeyPatch, policy: Policy, attempts: Sequence[Attempt], seed: int
) -> None:
    with monkeypatch.context() as patched:
        random.seed(seed)
        expected = in_one_process(policy, attempts, patched)
        random.seed(seed)
        run = one_step_at_a_time(policy, attempts, patched)
    # tenacity leaves the last wait in the state until the next one is computed; here there is none yet.
    assert [_comparable(entry) for entry in run.seen] == [_comparable(entry) for entry in expected.seen]
    assert run.end == expected.end


def _comparable(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    name = entry[0]
    return entry if name in ("slept", "before_sleep") else (*entry[:4], entry[5])
