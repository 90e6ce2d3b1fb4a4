"""Messages of the log run again, once each, and nothing else does."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.errors import QueueNotFound
from dramatiq.middleware import CurrentMessage

from broker import KafkaBroker, ReplayResult, ReplayState
from broker.produce.record import Record
from broker.replay.reading import NOT_A_MESSAGE
from broker.replay.selection import BEYOND_LIMIT, DEAD, EARLIER_RECORD, UNFINISHED
from broker.testing import Kit
from tests.broker.replay.conftest import QUEUE

REASON = "the template was wrong"


def now(kit: Kit) -> datetime:
    return datetime.fromtimestamp(kit.clock.wall_ms() / 1000, tz=UTC)


def test_a_replay_is_a_dry_run_unless_told_otherwise(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    for number in range(5):
        task.send(number)
    kit.drain()

    result = operator.replay(QUEUE)

    assert (result.dry_run, result.selected, result.to_send, result.sent) == (True, 5, 5, 0)
    assert result.actors == {"note": 5}
    assert operator.replays() == []
    assert kit.drain() == 0
    assert sorted(runs) == [0, 1, 2, 3, 4]


def test_a_replayed_message_runs_once_more_with_its_id(
    kit: Kit, operator: KafkaBroker, runs: list[Any]
) -> None:
    kit.broker.add_middleware(CurrentMessage())

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def note() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        runs.append((message.message_id, message.options.get("first_sent_timestamp")))

    sent = note.send()
    kit.drain()
    assert operator.replay(QUEUE, dry_run=False, reason=REASON).sent == 1
    kit.drain()
    assert runs == [(sent.message_id, None), (sent.message_id, sent.message_timestamp)]


def test_a_replay_can_give_new_ids(kit: Kit, operator: KafkaBroker, runs: list[Any]) -> None:
    kit.broker.add_middleware(CurrentMessage())

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def note() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        runs.append(message.message_id)

    sent = note.send()
    kit.drain()
    for repeats in (1, 2):
        # A copy with a new id and its original are one message.
        assert operator.replay(QUEUE, ids="new", dry_run=False, reason=REASON).sent == 1
        kit.drain()
        assert len(set(runs)) == len(runs) == 1 + repeats
    assert runs[0] == sent.message_id


def test_only_the_messages_of_the_range_and_of_the_actor_run(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def other(number: int) -> None:
        runs.append(-number)

    times = []
    for number in range(1, 5):
        times.append(now(kit))
        task.send(number)
        other.send(number)
        kit.drain()
        kit.clock.advance(timedelta(minutes=10))
    runs.clear()

    result = operator.replay(
        QUEUE, actor="note", since=times[1], until=times[3], dry_run=False, reason=REASON
    )
    kit.drain()

    assert sorted(runs) == [2, 3]
    assert (result.first, result.last) == (times[1], times[2])


def test_a_message_with_retries_runs_once(kit: Kit, operator: KafkaBroker, runs: list[Any]) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE, min_backoff=1_000, max_backoff=1_000)
    def fail_once(number: int) -> None:
        runs.append(number)
        if runs.count(number) == 1:
            raise ConnectionError

    fail_once.send(1)
    kit.broker.join(QUEUE)
    assert runs == [1, 1]

    result = operator.replay(QUEUE, dry_run=False, reason=REASON)
    kit.drain()

    assert runs == [1, 1, 1]
    assert result.skipped == {EARLIER_RECORD: 1}


def test_waiting_delayed_and_dead_messages_do_not_run_again(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE, max_retries=0)
    def die() -> None:
        raise ValueError

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE, min_backoff=60_000, max_backoff=60_000)
    def wait_for_a_retry() -> None:
        raise ConnectionError

    task.send(1)
    die.send()
    wait_for_a_retry.send()
    kit.drain(raise_errors=False)
    task.send(2)
    task.send_with_options(args=(3,), delay=60_000)

    result = operator.replay(QUEUE, dry_run=False, reason=REASON)
    assert result.sent == 1
    assert result.actors == {"note": 1}
    assert result.skipped == {DEAD: 1, UNFINISHED: 2}
    kit.drain()
    assert sorted(runs) == [1, 1, 2]


def test_a_redriven_message_runs_again_once_it_is_complete(
    kit: Kit, operator: KafkaBroker, runs: list[Any]
) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE, max_retries=0)
    def fail_first() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError

    fail_first.send()
    kit.drain(raise_errors=False)
    assert operator.replay(QUEUE).skipped == {DEAD: 1}
    operator.redrive(QUEUE, dry_run=False, reason=REASON)
    assert operator.replay(QUEUE).skipped == {UNFINISHED: 1}
    kit.drain()
    assert operator.replay(QUEUE, dry_run=False, reason=REASON).sent == 1
    kit.drain()
    assert len(runs) == 3


@pytest.mark.parametrize("key_order", ["relaxed", "ordered"])
def test_the_messages_of_a_key_keep_the_order_in_which_they_were_sent(
    kit: Kit, operator: KafkaBroker, runs: list[Any], key_order: str
) -> None:
    failed: set[int] = set()

    @dramatiq.actor(
        broker=kit.broker, queue_name=QUEUE, key_order=key_order, min_backoff=1_000, max_backoff=1_000
    )
    def keyed(number: int) -> None:
        if number % 3 == 0 and number not in failed:
            failed.add(number)
            raise ConnectionError
        runs.append(number)

    for number in range(9):
        keyed.send_with_options(args=(number,), partition_key="a")
    kit.broker.join(QUEUE)
    runs.clear()

    assert operator.replay(QUEUE, dry_run=False, reason=REASON).sent == 9
    kit.drain()

    assert runs == list(range(9))


def test_a_keyed_message_that_waits_in_its_lane_is_not_complete(kit: Kit, operator: KafkaBroker) -> None:
    @dramatiq.actor(
        broker=kit.broker, queue_name=QUEUE, key_order="ordered", min_backoff=60_000, max_backoff=60_000
    )
    def keyed() -> None:
        raise ConnectionError

    for _ in range(3):
        keyed.send_with_options(partition_key="a")
    kit.drain(raise_errors=False)
    result = operator.replay(QUEUE)
    assert (result.selected, result.skipped) == (0, {UNFINISHED: 3})


def test_the_limit_takes_the_first_messages(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    for number in range(6):
        task.send(number)
        kit.clock.advance(timedelta(seconds=1))
    kit.drain()
    runs.clear()
    result = operator.replay(QUEUE, limit=2, dry_run=False, reason=REASON)
    assert (result.selected, result.sent, result.skipped) == (2, 2, {BEYOND_LIMIT: 4})
    kit.drain()
    assert sorted(runs) == [0, 1]


def test_records_that_are_no_messages_are_counted(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any]
) -> None:
    task.send(1)
    kit.drain()
    topic = operator.parts.topics.queue(QUEUE)
    stray = Message("elsewhere", "note", (), {}, {}).encode()
    assert operator.parts.publisher.publish([Record(topic, b"no JSON"), Record(topic, stray)]) == {}
    result = operator.replay(QUEUE)
    assert (result.selected, result.skipped) == (1, {NOT_A_MESSAGE: 2})


def test_a_message_of_another_producer_without_an_id_keeps_the_one_that_it_ran_with(
    kit: Kit, operator: KafkaBroker, runs: list[Any]
) -> None:
    kit.broker.add_middleware(CurrentMessage())

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def note() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        runs.append(message.message_id)

    value = b'{"queue_name":"mail","actor_name":"note","args":[],"kwargs":{},"options":{},"message_id":null}'
    topic = operator.parts.topics.queue(QUEUE)
    assert operator.parts.publisher.publish([Record(topic, value)]) == {}
    kit.drain()
    assert operator.replay(QUEUE, dry_run=False, reason=REASON).sent == 1
    kit.drain()
    assert len(runs) == 2
    assert len(set(runs)) == 1


def test_a_flushed_log_has_nothing_to_replay_and_says_from_when_on(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any]
) -> None:
    for number in range(4):
        task.send(number)
    kit.drain()
    assert operator.replay(QUEUE).log_starts is None
    kit.broker.flush(QUEUE)
    result = operator.replay(QUEUE)
    assert (result.selected, result.log_starts) == (0, now(kit))
    kit.clock.advance(timedelta(seconds=1))
    since = now(kit)
    task.send(5)
    kit.drain()
    assert operator.replay(QUEUE, since=since).selected == 1


def test_messages_of_a_queue_that_no_worker_has_read_are_not_complete(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any]
) -> None:
    task.send(1)
    assert operator.replay(QUEUE).skipped == {UNFINISHED: 1}


def test_the_rate_is_limited_and_progress_is_told(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any]
) -> None:
    for number in range(10):
        task.send(number)
    kit.drain()
    progress: list[int] = []
    before_s = kit.clock.monotonic_s()

    def note(result: ReplayResult) -> None:
        progress.append(result.sent)

    operator.replay(QUEUE, dry_run=False, reason=REASON, rate_per_s=4, on_progress=note)
    assert progress == [4, 8, 10]
    assert kit.clock.monotonic_s() - before_s >= 2.0


def test_the_record_of_a_replay_says_who_did_what_when_and_why(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any]
) -> None:
    task.send(1)
    kit.drain()
    since = now(kit) - timedelta(hours=1)
    result = operator.replay(QUEUE, actor="note", since=since, dry_run=False, reason=REASON, by="ann")
    [record] = operator.replays()
    assert (record.id, record.queue_name, record.by, record.reason) == (result.id, QUEUE, "ann", REASON)
    assert (record.state, record.selected, record.sent) == (ReplayState.DONE, 1, 1)
    assert (record.actor, record.since_ms, record.until_ms, record.ids) == (
        "note", since.timestamp() * 1000, None, "same",
    )  # fmt: skip
    assert record.at_ms <= kit.clock.wall_ms()


def test_a_worker_ignores_the_record_of_a_replay(
    kit: Kit,
    operator: KafkaBroker,
    task: dramatiq.Actor[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    task.send(1)
    kit.drain()
    operator.replay(QUEUE, dry_run=False, reason=REASON)
    operator.pause(QUEUE, reason=REASON)
    assert kit.drain() == 0
    operator.resume(QUEUE)
    assert kit.drain() == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert operator.parts.commands.standing().keys() == {f"pause:{QUEUE}"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dry_run": False}, "reason"),
        ({"since": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"since": datetime(2026, 1, 2, tzinfo=UTC), "until": datetime(2026, 1, 1, tzinfo=UTC)}, "before"),
        ({"ids": "other"}, "ids="),
        ({"rate_per_s": 0}, "rate_per_s=0"),
        ({"limit": 0}, "limit=0"),
    ],
)
def test_parameters_out_of_their_range_are_refused(
    operator: KafkaBroker, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        operator.replay(QUEUE, **options)


def test_a_queue_that_was_not_declared_is_refused(operator: KafkaBroker) -> None:
    with pytest.raises(QueueNotFound):
        operator.replay("male")


def test_a_paused_queue_runs_replayed_messages_after_it_is_resumed(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    task.send(1)
    kit.drain()
    operator.pause(QUEUE, reason=REASON)
    assert operator.replay(QUEUE, dry_run=False, reason=REASON).sent == 1
    assert kit.drain() == 0
    operator.resume(QUEUE)
    kit.drain()
    assert Counter(runs) == {1: 2}
