"""What TenacityRetries does after a failed attempt. Dramatiq's stub broker and worker run everything here."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import tenacity
from dramatiq import Message, RateLimitExceeded, Retry
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Interrupt, Shutdown, TimeLimitExceeded
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from broker import NotNow, PermanentError, TemporaryError, TenacityRetries, retry_if_temporary
from broker.retries.decision import Again, call_state, decide
from tests.broker.retries.conftest import StartStubWorker

JOIN_TIMEOUT_MS = 60_000


class Task:
    """An actor that raises, one after the other, what it is given, and then returns."""

    def __init__(self, broker: StubBroker, errors: list[BaseException], **options: Any) -> None:
        self.broker = broker
        self.runs = 0
        self._errors = errors
        self.actor = dramatiq.actor(actor_name="task", broker=broker, **options)(self._run)

    def _run(self) -> None:
        self.runs += 1
        if self.runs <= len(self._errors):
            raise self._errors[self.runs - 1]

    def finish(self, start_stub_worker: StartStubWorker, **message_options: Any) -> MessageProxy | None:
        """Send one message, and return it if it ended as a dead letter."""
        start_stub_worker()
        self.actor.send_with_options(**message_options)
        self.broker.join("default", timeout=JOIN_TIMEOUT_MS)
        return next(iter(self.broker.dead_letters), None)


class NotFound(PermanentError):
    pass


class Locked(TemporaryError):
    pass


def three_attempts(**options: Any) -> Retrying:
    return Retrying(**{"stop": stop_after_attempt(3), "retry": retry_if_temporary, **options})


def test_the_policy_counts_the_attempts_over_all_runs(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [Locked()] * 5, retry=three_attempts())
    dead_letter = task.finish(start_stub_worker)
    assert task.runs == 3
    assert dead_letter is not None
    assert dead_letter.options["retries"] == 2


def test_a_task_that_succeeds_in_the_end_is_no_dead_letter(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [Locked()] * 2, retry=three_attempts(wait=wait_fixed(0.05)))
    assert task.finish(start_stub_worker) is None
    assert task.runs == 3


ODD_TIMES: tuple[Any, ...] = (
    1_700_000_000_000.25, -1e300, 10**400, -(10**400), math.nan, math.inf, -math.inf,
    None, "now", True, [],
)  # fmt: skip


@pytest.mark.parametrize("sent_at", ODD_TIMES, ids=lambda sent_at: str(sent_at)[:12])
@pytest.mark.parametrize("policy", ["tenacity's", "Dramatiq's"])
def test_a_message_of_any_time_is_tried_again(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker, policy: str, sent_at: Any
) -> None:
    rules = {"retry": three_attempts()} if policy == "tenacity's" else {"max_retries": 2, "max_backoff": 1}
    task = Task(stub_broker, [Locked()], **rules)
    start_stub_worker()
    stub_broker.enqueue(task.actor.message().copy(message_timestamp=sent_at))
    stub_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert task.runs == 2
    assert stub_broker.dead_letters == []


@pytest.mark.parametrize("sent_at", [10**400, math.nan, math.inf, -math.inf, None], ids=lambda t: str(t)[:12])
def test_a_policy_that_stops_after_a_time_does_so_when_the_message_does_not_say_when_it_was_sent(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker, sent_at: Any
) -> None:
    policy = three_attempts(stop=tenacity.stop_after_delay(0.05), wait=wait_fixed(0.03))
    task = Task(stub_broker, [Locked()] * 1_000, retry=policy)
    start_stub_worker()
    stub_broker.enqueue(task.actor.message().copy(message_timestamp=sent_at))
    stub_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert task.runs == 3, "its waits, 0.06 s, are all that is known of its age"
    assert len(stub_broker.dead_letters) == 1


@pytest.mark.parametrize(
    "error",
    [
        TemporaryError(), Locked(), ConnectionResetError(), ConnectionRefusedError(), BrokenPipeError(),
        TimeoutError(), BrokerConnectionError("away"), RateLimitExceeded("full"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_is_temporary_is_tried_again(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker, error: Exception
) -> None:
    task = Task(stub_broker, [error], retry=three_attempts())
    assert task.finish(start_stub_worker) is None
    assert task.runs == 2


@pytest.mark.parametrize(
    "error", [ValueError("bad input"), KeyError("x"), TimeLimitExceeded(), SystemExit(1)], ids=repr
)
def test_everything_else_is_a_dead_letter_at_once(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker, error: BaseException
) -> None:
    task = Task(stub_broker, [error], retry=three_attempts())
    dead_letter = task.finish(start_stub_worker)
    assert task.runs == 1
    assert dead_letter is not None
    assert dead_letter._exception is error
    assert dead_letter.options["last_error"].startswith(f"{type(error).__name__}: ")
    assert "retries" not in dead_letter.options, "a first attempt is no retry"


def test_a_permanent_error_wins_over_any_policy(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [NotFound("ad 7")], retry=Retrying())
    assert task.finish(start_stub_worker) is not None
    assert task.runs == 1


def test_the_text_of_an_error_begins_no_line_of_the_log(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    task = Task(stub_broker, [ValueError("ad 7\nAll is well.")], retry=three_attempts())
    assert task.finish(start_stub_worker) is not None
    (line,) = [r.getMessage() for r in caplog.records if "The policy does not retry" in r.getMessage()]
    assert line.endswith("ad 7\\nAll is well.")


def test_a_permanent_error_wins_over_dramatiqs_own_retries(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [NotFound("ad 7")], max_retries=5, min_backoff=1)
    assert task.finish(start_stub_worker) is not None
    assert task.runs == 1


def test_an_error_in_throws_is_a_dead_letter_at_once(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [Locked()], retry=three_attempts(), throws=(Locked,))
    assert task.finish(start_stub_worker) is not None
    assert task.runs == 1


def test_a_time_limit_is_the_policys_business(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    policy = three_attempts(retry=retry_if_exception_type(TimeLimitExceeded))
    task = Task(stub_broker, [TimeLimitExceeded()], retry=policy)
    assert task.finish(start_stub_worker) is None
    assert task.runs == 2


def test_a_retry_that_a_task_asks_for_is_made_whatever_the_predicate_says(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    policy = three_attempts(retry=tenacity.retry_never, wait=wait_fixed(3600))
    task = Task(stub_broker, [Retry("soon", delay=20)], retry=policy)
    assert task.finish(start_stub_worker) is None
    assert task.runs == 2


def test_a_retry_that_a_task_asks_for_still_counts_for_the_stop(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [Retry("soon", delay=20)] * 5, retry=three_attempts())
    assert task.finish(start_stub_worker) is not None
    assert task.runs == 3


def test_tenacitys_try_again_needs_no_predicate(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [tenacity.TryAgain()], retry=three_attempts())
    assert task.finish(start_stub_worker) is None
    assert task.runs == 2


def test_a_policy_of_a_tenacity_that_cannot_disable_one_is_followed() -> None:
    policy = three_attempts()
    del policy.enabled
    state = call_state(policy, print, (), {}, attempt_number=1, age_s=0.0, idle_for_s=0.0, error=Locked())
    assert isinstance(decide(policy, state), Again)


def test_a_policy_that_is_disabled_makes_one_attempt(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [Locked()], retry=three_attempts(enabled=False))
    assert task.finish(start_stub_worker) is not None
    assert task.runs == 1


def test_max_retries_on_a_message_replaces_the_policys_stop(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [Locked()] * 9, retry=three_attempts())
    assert task.finish(start_stub_worker, max_retries=4) is not None
    assert task.runs == 5


def test_the_callbacks_of_a_policy_get_the_state_of_each_attempt(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    seen: list[tuple[str, int, float]] = []

    def note(name: str) -> Callable[[RetryCallState], None]:
        return lambda state: seen.append((name, state.attempt_number, round(state.idle_for, 2)))

    policy = three_attempts(
        wait=wait_fixed(0.05), before=note("before"), after=note("after"), before_sleep=note("before_sleep")
    )
    task = Task(stub_broker, [Locked()] * 2, retry=policy)
    assert task.finish(start_stub_worker) is None
    assert seen == [
        ("before", 1, 0.0), ("after", 1, 0.0), ("before_sleep", 1, 0.05),
        ("before", 2, 0.05), ("after", 2, 0.05), ("before_sleep", 2, 0.1),
        ("before", 3, 0.1),
    ]  # fmt: skip


def test_the_time_since_the_start_is_the_age_of_the_message(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [Locked()] * 2, retry=Retrying(stop=tenacity.stop_after_delay(3600)))
    start_stub_worker()
    an_hour_ago = int((time.time() - 3601) * 1000)
    stub_broker.enqueue(task.actor.message().copy(message_timestamp=an_hour_ago))
    stub_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert task.runs == 1
    assert len(stub_broker.dead_letters) == 1


def test_the_tasks_arguments_are_in_the_state(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    def only_even(state: RetryCallState) -> bool:
        return bool(state.args[0] % 2 == 0 and state.kwargs["extra"] and state.fn is task.fn)

    runs: list[int] = []

    @dramatiq.actor(broker=stub_broker, retry=Retrying(stop=stop_after_attempt(2), retry=only_even))
    def task(number: int, extra: bool) -> None:
        runs.append(number)
        raise ValueError(number)

    start_stub_worker()
    task.send(1, extra=True)
    task.send(2, extra=True)
    stub_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert sorted(runs) == [1, 2, 2]


def test_a_message_says_how_far_it_is(stub_broker: StubBroker, start_stub_worker: StartStubWorker) -> None:
    task = Task(
        stub_broker,
        [Locked("row 7"), Locked("x" * 100_000)],
        retry=three_attempts(stop=stop_after_attempt(2)),
    )
    dead_letter = task.finish(start_stub_worker)
    assert dead_letter is not None
    options = dead_letter.options
    assert options["retries"] == 1
    assert options["first_sent_timestamp"] == dead_letter.message_timestamp
    assert options["last_error"].startswith("Locked: xxx")
    assert "Locked" in options["traceback"]
    assert options["requeue_timestamp"] >= dead_letter.message_timestamp
    assert len(json.dumps(options)) < 25_000


def test_an_error_as_long_as_a_book_stays_small_on_dramatiqs_own_retries_too(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    sizes: list[int] = []
    policy_free = Task(stub_broker, [ValueError("x" * 1_000_000)], max_retries=1, min_backoff=1)
    enqueue = stub_broker.enqueue

    def measured(message: Message[Any], **options: Any) -> Message[Any]:
        sent = enqueue(message, **options)
        sizes.append(len(sent.encode()))
        return sent

    stub_broker.enqueue = measured  # type: ignore[method-assign]
    assert policy_free.finish(start_stub_worker) is None
    assert max(sizes) < 25_000


def test_exhausted_retries_are_told_to_the_actor_named_for_it(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    told: list[tuple[dict[str, Any], dict[str, Any]]] = []

    @dramatiq.actor(broker=stub_broker)
    def exhausted(message: dict[str, Any], counts: dict[str, Any]) -> None:
        told.append((message, counts))

    task = Task(stub_broker, [Locked()] * 3, retry=three_attempts(), on_retry_exhausted="exhausted")
    dead_letter = task.finish(start_stub_worker)
    assert dead_letter is not None
    [(message, counts)] = told
    assert message["message_id"] == dead_letter.message_id
    assert counts == {"retries": 2, "max_retries": None}


def test_an_error_that_is_never_retried_exhausts_nothing(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    told: list[object] = []
    dramatiq.actor(broker=stub_broker, actor_name="exhausted")(lambda *args: told.append(args))
    task = Task(stub_broker, [ValueError()], retry=three_attempts(), on_retry_exhausted="exhausted")
    assert task.finish(start_stub_worker) is not None
    assert told == []


@pytest.mark.parametrize("wait_s", [math.nan, math.inf, "soon", None], ids=repr)
def test_a_wait_that_is_no_time_makes_a_dead_letter_and_loses_nothing(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker, wait_s: Any
) -> None:
    task = Task(stub_broker, [Locked()], retry=three_attempts(wait=lambda _: wait_s))
    dead_letter = task.finish(start_stub_worker)
    assert dead_letter is not None
    assert isinstance(dead_letter._exception, TypeError | ValueError | OverflowError)
    assert isinstance(dead_letter._exception.__context__, Locked)


@pytest.mark.parametrize("part", ["stop", "wait", "retry", "after", "before_sleep"])
def test_a_policy_that_raises_makes_a_dead_letter_and_loses_nothing(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker, part: str
) -> None:
    def broken(_state: RetryCallState) -> float:
        raise LookupError(part)

    task = Task(stub_broker, [Locked()], retry=three_attempts(**{part: broken}))
    dead_letter = task.finish(start_stub_worker)
    assert task.runs == 1
    assert dead_letter is not None
    assert repr(dead_letter._exception) == f"LookupError('{part}')"


def test_an_interrupt_while_a_failure_is_seen_to_loses_nothing(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    interrupts = [Shutdown(), TimeLimitExceeded()]

    def interrupted(_state: RetryCallState) -> float:
        if interrupts:
            raise interrupts.pop()
        return 0.0

    task = Task(stub_broker, [Locked()] * 3, retry=three_attempts(stop=tenacity.stop_never, wait=interrupted))
    assert task.finish(start_stub_worker) is None
    assert task.runs == 4


def test_a_message_with_a_senseless_count_is_a_dead_letter(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [Locked()], retry=three_attempts())
    dead_letter = task.finish(start_stub_worker, retries="many")
    assert dead_letter is not None
    assert "'many'" in str(dead_letter._exception)


@pytest.mark.parametrize(
    "options",
    [{"retry": three_attempts()}, {"max_retries": 0}, {"throws": (Exception,)}],
    ids=["policy", "Dramatiq's rules", "throws"],
)
def test_what_could_not_even_be_tried_is_run_again_uncounted_and_unlogged(
    stub_broker: StubBroker,
    start_stub_worker: StartStubWorker,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
) -> None:
    task = Task(stub_broker, [NotNow("the database is away") for _ in range(9)], **options)
    assert task.finish(start_stub_worker) is None
    assert task.runs == 10
    assert "away" not in caplog.text


def test_what_could_not_be_tried_is_run_again_after_its_delay(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    task = Task(stub_broker, [NotNow("locked", delay=1) for _ in range(9)], retry=three_attempts())
    delays: list[int | None] = []
    enqueue = stub_broker.enqueue

    def note(message: Any, *, delay: int | None = None) -> Any:
        delays.append(delay)
        return enqueue(message, delay=delay)

    stub_broker.enqueue = note  # type: ignore[method-assign]
    assert task.finish(start_stub_worker) is None
    assert task.runs == 10
    assert delays.count(1) == 9


@pytest.mark.parametrize("interrupt", [Shutdown, Interrupt])
def test_an_interrupted_attempt_is_made_again_and_not_counted(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker, interrupt: type[BaseException]
) -> None:
    counted: list[int] = []
    policy = three_attempts(before=lambda state: counted.append(state.attempt_number), wait=wait_fixed(3600))
    task = Task(stub_broker, [interrupt(), interrupt(), Retry(delay=1), interrupt()], retry=policy)
    assert task.finish(start_stub_worker) is None
    assert counted == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({}, 3),
        ({"max_retries": 1, "min_backoff": 1}, 2),
        ({"retry_when": lambda retries, _: retries < 3, "min_backoff": 1}, 4),
    ],
    ids=["none", "max_retries", "retry_when"],
)
def test_a_brokers_default_is_for_actors_that_say_nothing_themselves(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker, options: dict[str, Any], runs: int
) -> None:
    retries = next(m for m in stub_broker.middleware if isinstance(m, TenacityRetries))
    retries.retry = three_attempts()
    task = Task(stub_broker, [Locked()] * 9, **options)
    assert task.finish(start_stub_worker) is not None
    assert task.runs == runs


def test_an_actor_can_decline_the_brokers_default(
    stub_broker: StubBroker, start_stub_worker: StartStubWorker
) -> None:
    retries = next(m for m in stub_broker.middleware if isinstance(m, TenacityRetries))
    retries.retry = three_attempts()
    retries.max_retries, retries.min_backoff = 4, 1
    task = Task(stub_broker, [ValueError()] * 9, retry=None)
    dead_letter = task.finish(start_stub_worker)
    assert task.runs == 5
    assert dead_letter is not None
    assert dead_letter.options["retries"] == 5, "Dramatiq counts the retry that it does not make"
