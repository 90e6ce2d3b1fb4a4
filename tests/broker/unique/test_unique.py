"""One message of a unique key runs, wherever its duplicates wait."""

from __future__ import annotations

from typing import Any, Literal

import dramatiq
import pytest
from dramatiq.results.backends import StubBackend

from broker import Outcome, UniqueRefused
from broker.testing import Kit
from tests.broker.unique.conftest import QUEUE

MINUTE_MS = 60_000


def declare(kit: Kit, runs: list[Any], **options: Any) -> dramatiq.Actor[..., Any]:
    """An actor that notes its runs. ``during`` is called in each."""
    during = options.pop("during", lambda number: None)

    def work(key: str, number: int = 0) -> None:
        runs.append(number)
        during(number)

    options.setdefault("unique_by", "key")
    options.setdefault("max_retries", 0)
    return dramatiq.actor(broker=kit.broker, queue_name=QUEUE, **options)(work)


def is_done(kit: Kit) -> bool:
    return kit.broker.count(QUEUE) == 0 and list(kit.broker.dead_letters(QUEUE)) == []


# Until done


@pytest.mark.parametrize("unique", ["until_started", "until_done", 60])
def test_a_hundred_messages_of_one_key_behind_a_backlog_run_once(kit: Kit, unique: Any) -> None:
    runs: list[int] = []
    work = declare(kit, runs, unique=unique)

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def other() -> None: ...

    for _ in range(200):
        other.send()
    for number in range(100):
        work.send("a", number)
    work.send("b", 1_000)
    kit.drain()
    assert sorted(runs) == [0, 1_000]
    assert is_done(kit)


def test_a_message_sent_while_the_holder_runs_is_a_duplicate_until_done(kit: Kit) -> None:
    runs: list[int] = []

    def send_two(number: int) -> None:
        if number == 0:
            work.send("a", 1)
            work.send("a", 2)

    work = declare(kit, runs, unique="until_done", during=send_two)
    work.send("a", 0)
    kit.drain()
    assert runs == [0]
    work.send("a", 3)
    kit.drain()
    assert runs == [0, 3]
    assert is_done(kit)


def test_a_message_sent_while_the_holder_runs_is_the_next_holder_until_started(kit: Kit) -> None:
    runs: list[int] = []

    def send_two(number: int) -> None:
        if number == 0:
            work.send("a", 1)
            work.send("a", 2)

    work = declare(kit, runs, unique="until_started", during=send_two)
    work.send("a", 0)
    kit.drain()
    assert runs == [0, 1]
    assert is_done(kit)


def test_a_message_sent_within_the_span_after_the_end_is_a_duplicate(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs, unique=60)
    work.send("a", 0)
    kit.drain()
    kit.advance(seconds=59)
    work.send("a", 1)
    kit.drain()
    kit.advance(seconds=2)
    work.send("a", 2)
    kit.drain()
    assert runs == [0, 2]
    assert is_done(kit)


def test_a_duplicate_is_in_the_history_and_its_hooks_are_those_of_a_skipped_message(
    kit: Kit, results: StubBackend
) -> None:
    work = declare(kit, [], store_results=True)
    work.send("a", 0)
    duplicate = work.send("a", 1)
    kit.drain()
    assert duplicate.get_result(backend=results) is None
    assert is_done(kit)


# Crashes


@pytest.mark.parametrize("point", ["before", "after", "settled"])
@pytest.mark.parametrize("unique", ["until_started", "until_done", 60])
def test_a_killed_owner_leaves_no_key_locked_and_no_duplicate_that_runs(
    kit: Kit, unique: Any, point: Literal["before", "after", "settled"]
) -> None:
    runs: list[int] = []
    work = declare(kit, runs, unique=unique)
    for number in range(50):
        work.send("a", number)
    with kit.crash_worker(point):
        kit.drain()
    kit.drain()
    assert set(runs) == {0}
    kit.advance(minutes=2)
    work.send("a", 100)
    kit.drain()
    assert set(runs) == {0, 100}
    assert is_done(kit)


# Beside other features


def declare_failing(kit: Kit, runs: list[Any], *, failures: int, **options: Any) -> dramatiq.Actor[..., Any]:
    """An actor whose first runs fail, and whose retries wait for a minute."""

    def fail(key: str, number: int = 0) -> None:
        runs.append(number)
        if len(runs) <= failures:
            raise ConnectionError("the service is away")

    options.setdefault("unique_by", "key")
    return dramatiq.actor(
        broker=kit.broker, queue_name=QUEUE, min_backoff=MINUTE_MS, max_backoff=MINUTE_MS, **options
    )(fail)


@pytest.mark.parametrize("key_order", ["relaxed", "ordered"])
@pytest.mark.parametrize("crashes", [False, True])
def test_a_key_stays_taken_until_done_while_a_retry_waits(kit: Kit, key_order: str, crashes: bool) -> None:
    runs: list[int] = []
    fail = declare_failing(kit, runs, failures=1, unique="until_done", key_order=key_order)
    fail.send("a", 0)
    kit.drain(raise_errors=False)
    fail.send("a", 1)
    if crashes:
        with kit.crash_worker("before"):
            fail.send("b", 10)
            kit.drain(raise_errors=False)
        runs.clear()
    kit.drain(raise_errors=False)
    kit.advance(minutes=2)
    kit.drain(raise_errors=False)
    assert 1 not in runs
    assert runs.count(0) == (1 if crashes else 2)
    fail.send("a", 2)
    kit.drain(raise_errors=False)
    assert runs[-1] == 2
    assert is_done(kit)


@pytest.mark.parametrize("key_order", ["relaxed", "ordered"])
def test_the_next_message_of_a_key_until_started_is_no_duplicate_of_a_waiting_retry(
    kit: Kit, key_order: str
) -> None:
    runs: list[int] = []
    fail = declare_failing(kit, runs, failures=1, unique="until_started", key_order=key_order)
    fail.send("a", 0)
    kit.drain(raise_errors=False)
    fail.send("a", 1)
    fail.send("a", 2)
    kit.drain(raise_errors=False)
    assert runs == ([0, 1] if key_order == "relaxed" else [0])
    kit.advance(minutes=2)
    kit.drain(raise_errors=False)
    assert runs == ([0, 1, 0] if key_order == "relaxed" else [0, 0, 1])
    assert is_done(kit)


def test_a_delayed_message_takes_its_place_when_it_is_due(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs, unique="until_done")
    work.send_with_options(args=("a", 0), delay=MINUTE_MS)
    work.send_with_options(args=("a", 1), delay=MINUTE_MS)
    work.send("a", 2)
    kit.drain()
    assert runs == [2]
    kit.advance(minutes=2)
    kit.drain()
    assert runs in ([2, 0], [2, 1])
    assert is_done(kit)


def test_a_cancelled_delay_leaves_the_key_free(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    delayed = work.send_with_options(args=("a", 0), delay=MINUTE_MS)
    assert kit.broker.cancel(delayed.message_id) == Outcome.CANCELLED
    work.send("a", 1)
    kit.drain()
    assert runs == [1]


def test_a_redriven_message_is_no_duplicate_and_holds_the_key(kit: Kit) -> None:
    runs: list[int] = []
    fail = declare_failing(kit, runs, failures=1, unique=3_600, max_retries=0)
    fail.send("a", 0)
    kit.drain(raise_errors=False)
    fail.send("a", 1)  # a duplicate: the key is taken for an hour after the dead letter
    kit.broker.redrive(QUEUE, dry_run=False, reason="a test")
    fail.send("a", 2)
    kit.drain(raise_errors=False)
    assert runs == [0, 0]
    assert is_done(kit)


@pytest.mark.parametrize("unique", ["until_started", "until_done"])
def test_a_dead_letter_has_freed_its_key(kit: Kit, unique: Any) -> None:
    runs: list[int] = []
    fail = declare_failing(kit, runs, failures=1, unique=unique, max_retries=0)
    fail.send("a", 0)
    kit.drain(raise_errors=False)
    fail.send("a", 1)
    kit.drain(raise_errors=False)
    assert runs == [0, 1]
    assert kit.broker.count(QUEUE) == 0


def test_a_flush_leaves_the_key_free(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    work.send("a", 0)
    work.send("a", 1)
    kit.broker.flush(QUEUE)
    work.send("a", 2)
    kit.drain()
    assert runs == [2]


def test_an_aborted_or_expired_holder_frees_its_key_at_its_turn(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    aborted = work.send("a", 0)
    work.send_with_options(args=("b", 10), expires_in=1_000)
    work.send("a", 1)
    work.send("b", 11)
    kit.broker.abort(aborted.message_id, reason="a test")
    kit.advance(seconds=5)
    kit.drain()
    assert runs == []
    work.send("a", 2)
    work.send("b", 12)
    kit.drain()
    assert sorted(runs) == [2, 12]
    assert is_done(kit)


def test_a_paused_message_has_not_started(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs, unique="until_started")
    kit.broker.pause(QUEUE, reason="a test")
    work.send("a", 0)
    kit.drain()
    for number in range(1, 10):
        work.send("a", number)
    kit.broker.resume(QUEUE)
    kit.drain()
    assert runs == [0]


# The options


def test_the_key_is_of_the_named_parameters_however_they_are_passed(kit: Kit) -> None:
    runs: list[int] = []

    def work(user: int, number: int, kind: str = "mail") -> None:
        runs.append(number)

    actor = dramatiq.actor(broker=kit.broker, queue_name=QUEUE, unique_by=("user", "kind"))(work)
    actor.send(1, 0)
    actor.send(user=1, number=1, kind="mail")
    actor.send(1, 2, kind="sms")
    actor.send(2, 3)
    kit.drain()
    assert sorted(runs) == [0, 2, 3]


def test_a_function_makes_the_key_and_none_means_not_unique(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs, unique_by=lambda key, number: key or None)
    for number, key in enumerate(["a", "a", "", ""]):
        work.send(key, number)
    kit.drain()
    assert sorted(runs) == [0, 2, 3]


def test_the_options_of_a_message_precede_those_of_its_actor(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    work.send("a", 0)
    work.send_with_options(args=("a", 1), unique=None)
    work.send_with_options(args=("a", 2), unique_key="another")
    work.send_with_options(args=("b", 3), unique_key="another")
    plain = declare(kit, runs, unique_by=None, actor_name="plain")
    for number in (4, 5):
        plain.send_with_options(args=("a", number), unique_key="x", unique="until_started")
    kit.drain()
    assert sorted(runs) == [0, 1, 2, 4]


def test_a_long_key_is_unique_too(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    for number, key in enumerate(["a" * 1_000, "a" * 1_000, "a" * 999]):
        work.send(key, number)
    kit.drain()
    assert sorted(runs) == [0, 2]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"unique": "until_finished"}, "'until_finished': pass 'until_started', 'until_done', or"),
        ({"unique": 0}, "is 0: pass"),
        ({"unique": -1.5}, "is -1.5: pass"),
        ({"unique": True}, "is True: pass"),
        ({"unique": float("nan")}, "is nan: pass"),
        ({"unique": 1e12}, "of at most 31622400"),
        ({"unique": "60s"}, "is '60s': pass"),
        ({"unique_by": None, "unique": "until_done"}, "needs unique_by="),
        ({"unique_by": "nobody"}, "names 'nobody', and the parameters are 'key', 'number'"),
        ({"unique_by": ("key", "x", "y")}, "names 'x', 'y', and"),
        ({"unique_by": 7}, "is 7: pass the name of a parameter"),
        ({"unique_by": ()}, r"is \(\): pass the name"),
        ({"unique_by": ["key", 3]}, "pass the name of a parameter"),
        pytest.param(
            {"partition_key": lambda key, number: key}, "stands beside partition_key=", id="partition_key"
        ),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused_where_they_are_declared(
    kit: Kit, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UniqueRefused, match=reason):
        declare(kit, [], **options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"unique": "sometimes"}, "is 'sometimes': pass"),
        ({"unique_key": 7}, "its unique key is 7"),
        ({"unique_key": ""}, "its unique key is ''"),
        ({"unique_by": "key"}, "it has unique_by="),
        ({"partition_key": "x"}, "it has a partition_key= beside a unique key"),
    ],
    ids=str,
)
def test_options_of_a_message_that_cannot_be_are_refused_where_it_is_sent(
    kit: Kit, options: dict[str, Any], reason: str
) -> None:
    work = declare(kit, [])
    with pytest.raises(UniqueRefused, match=reason):
        work.send_with_options(args=("a", 0), **options)
    plain = declare(kit, [], unique_by=None, actor_name="plain")
    with pytest.raises(UniqueRefused, match="it has unique= and no key"):
        plain.send_with_options(args=("a", 0), unique="until_done")
    kit.drain()
    assert kit.broker.count(QUEUE) == 0
