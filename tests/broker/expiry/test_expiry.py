"""A message that has expired does not run, wherever it waited, and its outcome is its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.results import ResultFailure
from dramatiq.results.backends import StubBackend

from broker import ExpiryRefused, Outcome
from broker.testing import Kit
from tests.broker.expiry.conftest import QUEUE

MINUTE_MS = 60_000


def declare(kit: Kit, runs: list[Any], **options: Any) -> dramatiq.Actor[..., Any]:
    def work(number: int) -> None:
        runs.append(number)

    return dramatiq.actor(broker=kit.broker, queue_name=QUEUE, **options)(work)


def declare_failing(kit: Kit, runs: list[Any], **options: Any) -> dramatiq.Actor[..., Any]:
    def fail(number: int) -> None:
        runs.append(number)
        raise ConnectionError("the service is away")

    return dramatiq.actor(broker=kit.broker, queue_name=QUEUE, **options)(fail)


def is_done(kit: Kit) -> bool:
    """Whether no message is left, not even as a dead letter."""
    return kit.broker.count(QUEUE) == 0 and list(kit.broker.dead_letters(QUEUE)) == []


# Where a message waits


def test_a_message_that_waits_for_longer_than_its_actor_allows_does_not_run(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs, expires_in=MINUTE_MS)
    work.send(1)
    kit.advance(minutes=2)
    work.send(2)
    kit.drain()
    assert runs == [2]
    assert is_done(kit)


def test_a_message_runs_until_the_last_millisecond_before_its_expiry(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    now_ms = kit.clock.wall_ms()
    work.send_with_options(args=(1,), expires_at=now_ms + 1)
    work.send_with_options(args=(2,), expires_at=now_ms)
    kit.drain()
    assert runs == [1]


@pytest.mark.parametrize("span", [MINUTE_MS, float(MINUTE_MS), timedelta(minutes=1)], ids=str)
def test_a_time_span_begins_when_a_delayed_message_is_due(kit: Kit, span: Any) -> None:
    runs: list[int] = []
    work = declare(kit, runs, expires_in=span)
    work.send_with_options(args=(1,), delay=60 * MINUTE_MS)
    kit.advance(minutes=60, seconds=1)
    kit.drain()
    assert runs == [1]
    work.send_with_options(args=(2,), delay=60 * MINUTE_MS)
    kit.advance(minutes=62)
    kit.drain()
    assert runs == [1]
    assert is_done(kit)


def test_a_delayed_message_that_expires_before_it_is_due_does_not_run(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    until = datetime.fromtimestamp(kit.clock.wall_ms() / 1000, UTC) + timedelta(minutes=5)
    work.send_with_options(args=(1,), delay=10 * MINUTE_MS, expires_at=until)
    kit.advance(minutes=11)
    kit.drain()
    assert runs == []
    assert is_done(kit)


def test_a_retry_keeps_the_expiry_of_its_message(kit: Kit) -> None:
    runs: list[int] = []
    fail = declare_failing(
        kit, runs, expires_in=10 * MINUTE_MS, min_backoff=8 * MINUTE_MS, max_backoff=8 * MINUTE_MS
    )
    fail.send(1)
    for _ in range(4):
        kit.drain(raise_errors=False)
        kit.advance(minutes=9)
    # The second attempt came within the ten minutes, and the third did not.
    assert runs == [1, 1]
    assert is_done(kit)


def test_an_expired_message_does_not_hold_up_the_later_ones_of_its_key(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    fail = declare_failing(kit, runs, key_order="ordered", min_backoff=MINUTE_MS, max_backoff=MINUTE_MS)
    # Given a message whose retry holds up two others of its key, the first of which expires meanwhile
    fail.send_with_options(args=(0,), partition_key="a key", max_retries=1, expires_in=20 * MINUTE_MS)
    work.send_with_options(args=(1,), partition_key="a key", expires_in=1_000)
    work.send_with_options(args=(2,), partition_key="a key")
    kit.drain(raise_errors=False)
    kit.advance(minutes=2)
    kit.drain(raise_errors=False)
    kit.advance(minutes=2)
    kit.drain(raise_errors=False)
    assert runs == [0, 0, 2]


def test_an_expired_message_stays_expired_after_a_crash_of_its_worker(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs, expires_in=MINUTE_MS)
    with kit.crash_worker("before"):
        work.send(1)
        kit.drain()
    kit.advance(minutes=2)
    kit.drain()
    assert runs == []
    assert is_done(kit)


# The options


def test_the_option_of_a_message_precedes_that_of_its_actor_also_when_it_is_none(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs, expires_in=MINUTE_MS)
    work.send_with_options(args=(1,), expires_in=None)
    work.send_with_options(args=(2,), expires_at=None)
    work.send_with_options(args=(3,), expires_in=timedelta(hours=2))
    work.send_with_options(args=(4,), expires_in=1)
    kit.advance(hours=1)
    kit.drain()
    assert sorted(runs) == [1, 2, 3]


def test_a_message_that_never_expires_has_no_expiry_after_its_retry_either(kit: Kit) -> None:
    runs: list[int] = []
    fail = declare_failing(
        kit, runs, expires_in=MINUTE_MS, min_backoff=1_000, max_backoff=1_000, max_retries=2
    )
    fail.send_with_options(args=(1,), expires_in=None)
    for _ in range(3):
        kit.drain(raise_errors=False)
        kit.advance(hours=1)
    assert runs == [1, 1, 1]


@pytest.mark.parametrize("span", [0, -1, float("nan"), float("inf"), True, "60", timedelta(0)], ids=repr)
def test_a_time_span_that_cannot_be_is_refused_where_it_is_declared_and_where_it_is_sent(
    kit: Kit, span: Any
) -> None:
    with pytest.raises(ExpiryRefused, match="expires_in= of the actor"):
        declare(kit, [], actor_name="refused", expires_in=span)
    work = declare(kit, [])
    with pytest.raises(ExpiryRefused, match="expires_in= of a message"):
        work.send_with_options(args=(1,), expires_in=span)
    kit.drain()
    assert kit.enqueued == []


@pytest.mark.parametrize("instant", [True, "2030-01-01", float("nan"), datetime(2030, 1, 1)], ids=repr)  # noqa: DTZ001
def test_an_instant_that_is_none_is_refused_where_it_is_sent(kit: Kit, instant: Any) -> None:
    work = declare(kit, [])
    with pytest.raises(ExpiryRefused, match="expires_at= of a message"):
        work.send_with_options(args=(1,), expires_at=instant)
    assert kit.enqueued == []


def test_a_time_span_beside_an_instant_is_refused(kit: Kit) -> None:
    work = declare(kit, [])
    with pytest.raises(ExpiryRefused, match="pass one of them"):
        work.send_with_options(args=(1,), expires_in=1_000, expires_at=datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("value", ["tomorrow", [1], True], ids=repr)
def test_an_option_of_another_producer_that_is_no_time_does_not_let_its_message_expire(
    kit: Kit, value: Any
) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    message = work.message_with_options(args=(1,))
    record = kit.broker.parts.outgoing.record(message.copy(options={"expires_at": value}), None)
    assert kit.broker.parts.publisher.publish([record]) == {}
    kit.drain()
    assert runs == [1]


# What follows


def test_the_result_of_an_expired_message_is_a_failure(kit: Kit, results: StubBackend) -> None:
    work = declare(kit, [], expires_in=MINUTE_MS, store_results=True)
    message = work.send(1)
    kit.advance(minutes=2)
    kit.drain()
    with pytest.raises(ResultFailure, match="MessageExpired: the message expired at "):
        message.get_result(backend=results)


def test_nothing_follows_from_an_expired_message(kit: Kit) -> None:
    runs: list[Any] = []
    declare(kit, runs, expires_in=MINUTE_MS, actor_name="first")

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def follow(*args: Any) -> None:
        runs.append(args)

    first = kit.broker.get_actor("first")
    dramatiq.pipeline([first.message(1), follow.message()], broker=kit.broker).run()
    first.send_with_options(args=(2,), on_failure="follow", on_success="follow")
    kit.advance(minutes=2)
    kit.drain()
    assert runs == []
    assert is_done(kit)


def test_the_time_span_of_a_later_step_of_a_pipeline_begins_when_the_step_is_sent(kit: Kit) -> None:
    runs: list[Any] = []
    first = declare(kit, runs, actor_name="first")

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE, expires_in=MINUTE_MS)
    def follow(*args: Any) -> None:
        runs.append(args)

    steps = dramatiq.pipeline([first.message(1), follow.message()], broker=kit.broker)
    steps.run(delay=60 * MINUTE_MS)
    kit.advance(hours=1, seconds=1)
    kit.drain()
    assert runs == [1, (None,)]


# Beside the other commands


def test_an_expired_message_that_is_still_delayed_can_be_cancelled(kit: Kit) -> None:
    work = declare(kit, [])
    message = work.send_with_options(args=(1,), delay=60 * MINUTE_MS, expires_in=None)
    expiring = work.send_with_options(args=(1,), delay=60 * MINUTE_MS, expires_at=kit.clock.wall_ms() + 1)
    kit.advance(minutes=2)
    assert kit.broker.cancel(expiring.message_id) is Outcome.CANCELLED
    assert kit.broker.cancel(message.message_id) is Outcome.CANCELLED
    assert kit.broker.count(QUEUE) == 0


def test_a_dead_letter_does_not_expire_and_its_redrive_has_as_much_time_again(kit: Kit) -> None:
    runs: list[int] = []
    fail = declare_failing(kit, runs, expires_in=MINUTE_MS, max_retries=0)
    fail.send(1)
    kit.drain(raise_errors=False)
    kit.advance(hours=5)
    assert len(list(kit.broker.dead_letters(QUEUE))) == 1
    # When it is redriven, it runs
    kit.broker.redrive(QUEUE, dry_run=False, reason="a test")
    kit.advance(seconds=59)
    kit.drain(raise_errors=False)
    assert runs == [1, 1]
    # And a later redrive expires if it waits for longer than the message might at first
    kit.broker.redrive(QUEUE, dry_run=False, reason="a test")
    kit.advance(seconds=61)
    kit.drain(raise_errors=False)
    assert runs == [1, 1]
    assert is_done(kit)


def test_a_message_with_an_instant_that_is_over_runs_after_a_redrive(kit: Kit) -> None:
    """It became a dead letter without a run: its actor was not declared."""
    message: dramatiq.Message[Any] = dramatiq.Message(
        QUEUE, "later", (1,), {}, {"expires_at": kit.clock.wall_ms() - 1}
    )
    kit.broker.declare_queue(QUEUE)
    kit.broker.enqueue(message)
    kit.drain()
    assert len(list(kit.broker.dead_letters(QUEUE))) == 1
    runs: list[int] = []
    declare(kit, runs, actor_name="later")
    kit.broker.redrive(QUEUE, dry_run=False, reason="a test")
    kit.drain()
    assert runs == [1]


def test_a_replay_runs_an_expired_message(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs, expires_in=MINUTE_MS)
    work.send(1)
    kit.advance(minutes=2)
    kit.drain()
    assert runs == []
    kit.broker.replay(QUEUE, dry_run=False, reason="the worker was away")
    kit.drain()
    assert runs == [1]


# Two clocks


def test_the_clock_of_the_worker_decides_about_the_instant_that_the_sender_has_set(kit: Kit) -> None:
    """The clock of the sender is an hour behind, and then an hour ahead."""
    runs: list[int] = []
    work = declare(kit, runs)
    hour_ms = 60 * MINUTE_MS
    for skew_ms in (-hour_ms, hour_ms):
        sent_ms = kit.clock.wall_ms() + skew_ms
        message = work.message_with_options(args=(skew_ms,), expires_at=sent_ms + MINUTE_MS)
        kit.broker.enqueue(message.copy(message_timestamp=sent_ms))
    kit.drain()
    assert runs == [hour_ms]
    work.send_with_options(args=(0,), expires_at=kit.clock.wall_ms() + hour_ms + MINUTE_MS)
    kit.advance(minutes=62)
    kit.drain()
    assert runs == [hour_ms]
