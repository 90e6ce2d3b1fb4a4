"""Dead letters, delays and partition keys are the broker's promise, whatever middleware there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, Worker
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import AsyncIO, Callbacks, CurrentMessage, Middleware, Retries
from dramatiq.middleware import default_middleware as dramatiqs_middleware
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend
from tenacity import Retrying

from broker import (
    DeadLetter,
    DeadLetters,
    KafkaBroker,
    NotNow,
    RetryPolicyRefused,
    TenacityRetries,
    default_middleware,
)
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.dead_letters.samples import QUEUE
from tests.waiting import wait_until

DEADLINE_S = 90.0
JOIN_TIMEOUT_MS = int(DEADLINE_S * 1000)
#: Joining a group takes seconds on one stack.
AT_A_TIME = 6


class OurOwnRetries(Retries):
    """As an application subclasses it."""


class OurOwnDeadLetters(DeadLetters):
    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        super().before_nack(broker, message)


class RetryOnce(Middleware):
    """An application's own way to retry, which is no Retries."""

    def after_process_message(
        self, broker: Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if exception is not None and not message.options.get("retries"):
            message.options["retries"] = 1
            broker.enqueue(message, delay=1)


def dramatiqs_own() -> list[Middleware]:
    return [kind() for kind in dramatiqs_middleware]


def results() -> Results:
    return Results(backend=StubBackend(), store_results=True)


LISTS: dict[str, Callable[[], list[Middleware] | None]] = {
    "the default": lambda: None,
    "Dramatiq's": dramatiqs_own,
    "Dramatiq's backwards": lambda: dramatiqs_own()[::-1],
    "none": list,
    "only Dramatiq's Retries": lambda: [Retries()],
    "only callbacks": lambda: [Callbacks()],
    "results first": lambda: [results(), *dramatiqs_own()],
    "results last": lambda: [*dramatiqs_own(), results()],
    "dead letters twice": lambda: [*default_middleware(), DeadLetters()],
    "subclasses": lambda: [OurOwnDeadLetters(), OurOwnRetries()],
    "two that retry": lambda: [*default_middleware(), Retries()],
    "a retry of its own kind": lambda: [RetryOnce()],
    "asyncio and the current message": lambda: [CurrentMessage(), *dramatiqs_own(), AsyncIO()],
}


def add_later(broker: KafkaBroker) -> None:
    for middleware in [results(), *dramatiqs_own()]:
        broker.add_middleware(middleware)


def remove_dead_letters(broker: KafkaBroker) -> None:
    broker.middleware.remove(next(m for m in broker.middleware if isinstance(m, DeadLetters)))


def replace(broker: KafkaBroker) -> None:
    broker.middleware = dramatiqs_own()


CHANGES: dict[str, tuple[list[Middleware] | None, Callable[[KafkaBroker], object]]] = {
    "added later": ([], add_later),
    "dead letters removed": (None, remove_dead_letters),
    "all removed": (None, lambda broker: broker.middleware.clear()),
    "replaced": (None, replace),
}


class Application:
    """Actors that fail in different ways, on a broker with some list of middleware."""

    def __init__(self, broker: KafkaBroker) -> None:
        self.broker = broker
        self.runs: Counter[str] = Counter()
        self.sent: dict[str, Message[Any]] = {}
        knows_retries = "max_retries" in broker.actor_options
        retry: dict[str, Any] = {"max_retries": 1, "min_backoff": 1} if knows_retries else {}
        no_retry: dict[str, Any] = {"max_retries": 0} if knows_retries else {}
        self.retries = any(isinstance(m, Retries | RetryOnce) for m in broker.middleware)
        self.retries_all = any(isinstance(m, RetryOnce) for m in broker.middleware)

        def run(name: str) -> None:
            self.runs[name] += 1
            if name == "fails" or (name in ("retried", "recovers") and self.runs[name] == 1):
                raise RuntimeError(f"{name} was asked to")
            if name == "always fails":
                raise RuntimeError(f"{name} was asked to")

        self._once = dramatiq.actor(broker=broker, actor_name="once", **no_retry)(run)
        self._twice = dramatiq.actor(
            broker=broker, actor_name="twice", partition_key=lambda name: name, **retry
        )(run)

    def send(self) -> None:
        self.sent = {
            "works": self._once.send("works"),
            "fails": self._once.send("fails"),
            "recovers": self._twice.send("recovers"),
            "always fails": self._twice.send("always fails"),
            "delayed": self._twice.send_with_options(args=("delayed",), delay=10),
        }

    def join(self) -> None:
        self.broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)

    def dead_letters(self) -> dict[str, list[DeadLetter]]:
        """The dead letters of each message."""
        found: dict[str, list[DeadLetter]] = {name: [] for name in self.sent}
        names = {message.message_id: name for name, message in self.sent.items()}
        for dead_letter in self.broker.dead_letters(QUEUE):
            assert dead_letter.message is not None
            found[names[dead_letter.message.message_id]].append(dead_letter)
        return found


@pytest.fixture(scope="module")
def applications(make_broker: MakeBroker, start_worker: StartWorker) -> dict[str, Application]:
    """All have run to their end and have no worker now."""
    all_of_them = {
        name: Application(make_broker(middleware=make(), partitions=1)) for name, make in LISTS.items()
    }
    for name, (middleware, change) in CHANGES.items():
        broker = make_broker(middleware=middleware, partitions=1)
        change(broker)
        all_of_them[name] = Application(broker)
    # Some at a time: a member that gets no processor for a session timeout runs its messages twice.
    waiting = list(all_of_them.values())
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        while waiting:
            running, waiting = waiting[:AT_A_TIME], waiting[AT_A_TIME:]
            list(threads.map(Application.send, running))
            workers = [start_worker(application.broker, worker_threads=2) for application in running]
            list(threads.map(Application.join, running))
            list(threads.map(Worker.stop, workers))
    return all_of_them


@pytest.mark.parametrize("name", [*LISTS, *CHANGES])
def test_every_failure_ends_as_one_retry_or_one_dead_letter(
    applications: dict[str, Application], name: str
) -> None:
    application = applications[name]
    retries = application.retries
    runs, dead_letters = application.runs, application.dead_letters()
    ended = {each: (runs[each], len(dead_letters[each])) for each in application.sent}
    once = 2 if application.retries_all else 1
    assert ended == {
        "works": (1, 0),
        "fails": (once, 1),
        "recovers": (2, 0) if retries else (1, 1),
        "always fails": (2 if retries else 1, 1),
        "delayed": (1, 0),
    }
    for each, found in dead_letters.items():
        for dead_letter in found:
            assert (dead_letter.error_type, dead_letter.error) == ("RuntimeError", f"{each} was asked to")
            assert dead_letter.retry_count == runs[each] - 1


@pytest.mark.parametrize("name", [*LISTS, *CHANGES])
def test_the_key_of_an_actors_messages_is_made(applications: dict[str, Application], name: str) -> None:
    assert applications[name].sent["recovers"].options["partition_key"] == "recovers"


def test_each_on_dead_letter_of_a_list_is_told(make_broker: MakeBroker, start_worker: StartWorker) -> None:
    first: list[DeadLetter] = []
    second: list[DeadLetter] = []
    broker = make_broker(middleware=[DeadLetters(on_dead_letter=first.append), Retries()])
    broker.add_middleware(OurOwnDeadLetters(on_dead_letter=second.append))
    dramatiq.actor(broker=broker, actor_name="task", max_retries=0)(lambda: 1 / 0).send()
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert [dead_letter.error_type for dead_letter in first] == ["ZeroDivisionError"]
    assert first == second


def test_an_attempt_that_was_not_made_goes_back_to_its_queue_without_any_middleware(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker(middleware=[])
    runs: list[int] = []

    @dramatiq.actor(broker=broker)
    def task() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise NotNow("the database is away")

    task.send()
    start_worker(broker)
    wait_until(lambda: len(runs) == 3, deadline_s=DEADLINE_S, what="the third run")
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert list(broker.dead_letters(QUEUE)) == []


def test_the_traceback_of_dramatiqs_retries_does_not_outgrow_the_message(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker(middleware=dramatiqs_own())

    @dramatiq.actor(broker=broker, max_retries=1, min_backoff=1)
    def task() -> None:
        raise RuntimeError("x" * 5_000_000)

    task.send()
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    [dead_letter] = broker.dead_letters(QUEUE)
    assert (dead_letter.error_type, dead_letter.retry_count) == ("RuntimeError", 1)
    assert dead_letter.why_not_redrivable is None


@pytest.mark.parametrize("middleware", [[], [Retries()]], ids=["none", "Dramatiq's Retries"])
def test_a_policy_that_no_middleware_would_run_is_refused(middleware: list[Middleware]) -> None:
    broker = KafkaBroker(middleware=middleware)
    with pytest.raises(RetryPolicyRefused, match="TenacityRetries"):
        dramatiq.actor(broker=broker, actor_name="task", retry=Retrying())(lambda: None)
    broker.add_middleware(TenacityRetries())
    dramatiq.actor(broker=broker, actor_name="task", retry=Retrying())(lambda: None)
