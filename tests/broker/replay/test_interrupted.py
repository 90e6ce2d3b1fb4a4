"""A replay that is interrupted at any step and repeated sends each message once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest

from broker import EnqueueFailed, KafkaBroker, KafkaUnavailable, ReplayState
from broker.produce.record import Record
from broker.replay.replayer import REMOVED
from broker.replay.request import Ids
from broker.testing import Kit
from tests.broker.replay.conftest import QUEUE

REASON = "the template was wrong"
MESSAGES = 5
RATE_PER_S = 2.0
#: begun, three batches, done.
STEPS = [(when, step) for step in range(1, 6) for when in ("before", "after")] + [("amid", 2), ("amid", 3)]


class Killed(BaseException):
    """Ends a replay as SIGKILL does: nothing handles it."""


@contextmanager
def killed_at(broker: KafkaBroker, when: str, step: int) -> Iterator[None]:
    """End the replay in the block before, after or amid its ``step``-th publish."""
    publish, left = broker.parts.publisher.publish, [step]

    def publish_or_die(records: Sequence[Record]) -> dict[int, BaseException]:
        left[0] -= 1
        if left[0]:
            return publish(records)
        if when != "before":
            publish(records if when == "after" else records[:1])
        raise Killed

    with pytest.MonkeyPatch.context() as dying:
        dying.setattr(broker.parts.publisher, "publish", publish_or_die)
        with pytest.raises(Killed):
            yield


@pytest.fixture
def sent(kit: Kit, task: dramatiq.Actor[..., Any], runs: list[Any]) -> range:
    for number in range(MESSAGES):
        task.send(number)
    kit.drain()
    runs.clear()
    return range(MESSAGES)


@pytest.mark.parametrize("worked", [False, True], ids=["idle", "worked"])
@pytest.mark.parametrize("ids", ["same", "new"])
@pytest.mark.parametrize(("when", "step"), STEPS)
def test_a_replay_ended_at_any_step_and_repeated_runs_each_message_once(
    kit: Kit,
    operator: KafkaBroker,
    sent: range,
    runs: list[Any],
    when: str,
    step: int,
    ids: Ids,
    worked: bool,
) -> None:
    with killed_at(operator, when, step):
        operator.replay(QUEUE, ids=ids, dry_run=False, reason=REASON, by="the first", rate_per_s=RATE_PER_S)
    if worked:
        kit.drain()

    has_ended, has_begun = (when, step) == ("after", 5), (when, step) != ("before", 1)
    dry = operator.replay(QUEUE, ids=ids)
    assert len(dry.interrupted) == (has_begun and not has_ended)
    if not has_ended:
        result = operator.replay(QUEUE, ids=ids, dry_run=False, reason=REASON, by="the second")
        assert (dry.to_send, dry.sent_before) == (result.sent, result.sent_before)
        assert result.sent + result.sent_before == MESSAGES
    kit.drain()

    assert Counter(runs) == Counter(sent)
    states = Counter(record.state for record in operator.replays())
    assert states[ReplayState.BEGUN] == 0
    assert operator.replay(QUEUE).interrupted == ()


def test_a_replay_ended_again_and_again_runs_each_message_once(
    kit: Kit, operator: KafkaBroker, sent: range, runs: list[Any]
) -> None:
    for when, step in (("amid", 2), ("after", 2), ("after", 1), ("amid", 2)):
        with killed_at(operator, when, step):
            operator.replay(QUEUE, dry_run=False, reason=REASON, rate_per_s=1)
    result = operator.replay(QUEUE, dry_run=False, reason=REASON)
    assert len(result.interrupted) == 4
    kit.drain()
    assert Counter(runs) == Counter(sent)
    records = operator.replays()
    assert Counter(record.state for record in records) == {ReplayState.CONTINUED: 4, ReplayState.DONE: 1}
    assert {record.continued_by for record in records} == {None, result.id}
    assert sum(record.sent for record in records) == MESSAGES


def test_a_repeat_with_a_limit_sends_no_more_than_the_limit(
    kit: Kit, operator: KafkaBroker, sent: range, runs: list[Any]
) -> None:
    with killed_at(operator, "after", 2):
        operator.replay(QUEUE, limit=3, dry_run=False, reason=REASON, rate_per_s=RATE_PER_S)
    result = operator.replay(QUEUE, limit=3, dry_run=False, reason=REASON)
    assert (result.sent_before, result.sent) == (2, 1)
    kit.drain()
    assert len(set(runs)) == len(runs) == 3


def test_a_replay_of_less_does_not_end_an_interrupted_one(
    kit: Kit, operator: KafkaBroker, sent: range, runs: list[Any]
) -> None:
    with killed_at(operator, "after", 2):
        operator.replay(QUEUE, dry_run=False, reason=REASON, rate_per_s=RATE_PER_S)
    kit.clock.advance(timedelta(seconds=1))
    until = datetime.fromtimestamp(kit.clock.wall_ms() / 1000, tz=UTC)
    assert operator.replay(QUEUE, until=until, dry_run=False, reason=REASON).sent == 3
    [interrupted] = operator.replay(QUEUE).interrupted
    # Those that the interrupted one has sent are still not sent again.
    assert operator.replay(QUEUE).sent_before == 2
    operator.replay(QUEUE, dry_run=False, reason=REASON)
    assert interrupted not in operator.replay(QUEUE).interrupted


def test_a_replay_after_a_complete_one_runs_the_messages_again(
    kit: Kit, operator: KafkaBroker, sent: range, runs: list[Any]
) -> None:
    for _ in range(3):
        assert operator.replay(QUEUE, dry_run=False, reason=REASON).sent == MESSAGES
        kit.drain()
    assert Counter(runs) == dict.fromkeys(sent, 3)


def test_a_failed_batch_interrupts_the_replay_and_names_its_messages(
    kit: Kit, operator: KafkaBroker, sent: range, runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = operator.parts.publisher.publish

    def fail(records: Sequence[Record]) -> dict[int, BaseException]:
        if records[0].topic == operator.parts.topics.queue(QUEUE):
            return {0: KafkaUnavailable("away"), **publish(records[1:])}
        return publish(records)

    with monkeypatch.context() as failing:
        failing.setattr(operator.parts.publisher, "publish", fail)
        with pytest.raises(EnqueueFailed) as failed:
            operator.replay(QUEUE, dry_run=False, reason=REASON)
    assert len(failed.value.failures) == 1
    assert operator.replay(QUEUE, dry_run=False, reason=REASON).sent == 1
    kit.drain()
    assert Counter(runs) == Counter(sent)


def test_a_replay_raises_while_kafka_is_away_and_can_be_repeated(
    kit: Kit, operator: KafkaBroker, sent: range, runs: list[Any]
) -> None:
    with kit.cluster.away(), pytest.raises(KafkaUnavailable):
        operator.replay(QUEUE, dry_run=False, reason=REASON)
    assert operator.replay(QUEUE, dry_run=False, reason=REASON).sent == MESSAGES
    kit.drain()
    assert Counter(runs) == Counter(sent)


def test_a_message_whose_record_is_removed_meanwhile_is_counted(
    kit: Kit, operator: KafkaBroker, sent: range, runs: list[Any]
) -> None:
    def flush(result: object) -> None:
        kit.broker.flush(QUEUE)

    result = operator.replay(QUEUE, dry_run=False, reason=REASON, rate_per_s=RATE_PER_S, on_progress=flush)
    assert (result.sent, result.skipped) == (2, {REMOVED: 3})


def test_a_recreated_topic_has_only_its_own_messages(
    kit: Kit, operator: KafkaBroker, sent: range, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    with killed_at(operator, "after", 2):
        operator.replay(QUEUE, dry_run=False, reason=REASON, rate_per_s=RATE_PER_S)
    kit.cluster.delete_topic(operator.parts.topics.queue(QUEUE))
    task.send(7)
    kit.drain()
    result = operator.replay(QUEUE, dry_run=False, reason=REASON)
    assert (result.sent, result.sent_before) == (1, 0)
