"""Putting dead letters back on their queue, and putting them away."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter

import dramatiq
import pytest
import tenacity

from broker import KafkaBroker, TemporaryError
from broker.dead_letters.resolution import Action, ResolutionState
from broker.produce.record import Record
from dev.stack import ROOT, Stack
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.dead_letters.samples import QUEUE, add_dead_letter, message, on_queue, records_on_queue
from tests.waiting import wait_until

DEADLINE_S = 60.0


@pytest.fixture
def broker(make_broker: MakeBroker) -> KafkaBroker:
    return make_broker(partitions=1)


def test_a_redrive_is_a_dry_run_unless_told_otherwise(broker: KafkaBroker) -> None:
    add_dead_letter(broker, [message("mail"), message("mail"), message("report")])
    resolved = broker.redrive(QUEUE, actor="mail")
    assert (resolved.dry_run, resolved.selected, resolved.to_send, resolved.sent) == (True, 2, 2, 0)
    assert resolved.error_types == {"ValueError": 2}
    assert on_queue(broker) == []
    assert len(list(broker.dead_letters(QUEUE))) == 3
    assert list(broker.dead_letter_queue.history(QUEUE)) == []


def test_a_redriven_message_keeps_its_identity_and_begins_a_new_life(broker: KafkaBroker) -> None:
    dead = message("mail", pipe_target="next").copy(message_timestamp=1_000)
    add_dead_letter(broker, [dead], headers=[("traceparent", b"00-1")])
    resolved = broker.redrive(QUEUE, dry_run=False, reason="fixed")
    assert (resolved.selected, resolved.sent) == (1, 1)

    [(again, headers)] = records_on_queue(broker)
    assert (again.message_id, again.actor_name, again.args, again.kwargs) == (
        dead.message_id, dead.actor_name, dead.args, dead.kwargs,
    )  # fmt: skip
    assert again.options == {"pipe_target": "next", "redrives": 1, "first_sent_timestamp": 1_000}
    assert again.message_timestamp > dead.message_timestamp
    assert headers == [("traceparent", b"00-1")]


def test_what_was_redriven_is_no_longer_a_dead_letter_and_is_not_redriven_again(broker: KafkaBroker) -> None:
    add_dead_letter(broker, [message(), message()])
    assert broker.redrive(QUEUE, dry_run=False, reason="fixed").sent == 2
    assert list(broker.dead_letters(QUEUE)) == []
    again = broker.redrive(QUEUE, dry_run=False, reason="to be sure")
    assert (again.selected, again.sent) == (0, 0)
    assert len(on_queue(broker)) == 2


def test_the_history_says_who_did_what_when_and_why(broker: KafkaBroker) -> None:
    mail, report = message("mail"), message("report")
    add_dead_letter(broker, [mail, report])
    broker.redrive(QUEUE, dry_run=False, reason="database is back", by="ann", actor="mail")
    broker.discard(QUEUE, dry_run=False, reason="obsolete")
    redriven, discarded = broker.dead_letter_queue.history(QUEUE)
    assert (redriven.state, discarded.state) == (ResolutionState.DONE, ResolutionState.DONE)
    assert (redriven.by, redriven.action, redriven.reason) == ("ann", Action.REDRIVE, "database is back")
    assert (discarded.action, discarded.reason) == (Action.DISCARD, "obsolete")
    assert "@" in discarded.by
    assert redriven.operation != discarded.operation
    assert (list(redriven.dead_letters.values()), list(discarded.dead_letters.values())) == (
        [mail.message_id], [report.message_id],
    )  # fmt: skip
    assert abs(time.time() * 1000 - discarded.timestamp) < 600_000


def test_what_was_discarded_is_neither_read_nor_redriven(broker: KafkaBroker) -> None:
    unreadable = Record(broker.parts.topics.dead_letters(QUEUE), b"not ours")
    add_dead_letter(broker, [message()])
    assert broker.parts.publisher.publish([unreadable]) == {}
    assert broker.discard(QUEUE).selected == 2
    assert len(list(broker.dead_letters(QUEUE))) == 2
    assert broker.discard(QUEUE, dry_run=False, reason="obsolete").selected == 2
    assert list(broker.dead_letters(QUEUE)) == []
    assert broker.redrive(QUEUE, dry_run=False, reason="test").selected == 0
    assert on_queue(broker) == []


def test_what_cannot_be_put_back_is_counted_and_stays(broker: KafkaBroker) -> None:
    unreadable = Record(broker.parts.topics.dead_letters(QUEUE), b"not ours")
    assert broker.parts.publisher.publish([unreadable]) == {}
    add_dead_letter(broker, [message(), message().copy(queue_name="other")])
    resolved = broker.redrive(QUEUE, dry_run=False, reason="test")
    assert (resolved.selected, resolved.sent, sum(resolved.refused.values())) == (3, 1, 2)
    assert len(list(broker.dead_letters(QUEUE))) == 2


@pytest.mark.real_kafka("a topic's max.message.bytes")
def test_one_that_its_queue_does_not_take_holds_up_no_other(broker: KafkaBroker) -> None:
    too_large = message().copy(args=("x" * 1_100_000,))
    add_dead_letter(broker, [message(), too_large, message()])
    resolved = broker.redrive(QUEUE, dry_run=False, reason="test")
    assert (resolved.selected, resolved.sent, sum(resolved.refused.values())) == (3, 2, 1)
    assert [dead_letter.message for dead_letter in broker.dead_letters(QUEUE)] == [too_large]
    again = broker.redrive(QUEUE, dry_run=False, reason="test")
    assert (again.selected, again.sent) == (1, 0)
    assert len(on_queue(broker)) == 2


@pytest.mark.parametrize("action", ["redrive", "discard"])
def test_nothing_is_done_without_a_reason(broker: KafkaBroker, action: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        getattr(broker, action)(QUEUE, dry_run=False, reason=" ")


def test_two_dead_letters_of_one_failure_are_sent_once(broker: KafkaBroker) -> None:
    dead = message()
    add_dead_letter(broker, [dead, dead])  # as a crash before the commit leaves them
    assert broker.redrive(QUEUE).to_send == 1
    resolved = broker.redrive(QUEUE, dry_run=False, reason="fixed")
    assert (resolved.selected, resolved.to_send, resolved.sent) == (2, 1, 1)
    assert list(broker.dead_letters(QUEUE)) == []


def test_a_message_that_fails_again_can_be_redriven_again(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker()
    attempts: list[int] = []
    healthy: list[bool] = []
    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(2), before=lambda state: attempts.append(state.attempt_number)
    )

    @dramatiq.actor(broker=broker, retry=policy, max_age=DEADLINE_S * 1000)
    def task() -> None:
        if not healthy:
            raise TemporaryError("still down")

    sent = task.send()
    start_worker(broker)
    for generation in range(3):
        [dead_letter] = wait_until(
            lambda: list(broker.dead_letters(QUEUE)), deadline_s=DEADLINE_S, what="the dead letter"
        )
        assert dead_letter.message is not None
        assert dead_letter.message.message_id == sent.message_id
        assert (dead_letter.generation, dead_letter.retry_count) == (generation, 1)
        if generation == 2:
            healthy.append(True)
        assert broker.redrive(QUEUE, dry_run=False, reason="try again").sent == 1
    broker.join(QUEUE, timeout=int(DEADLINE_S * 1000))
    assert attempts == [1, 2, 1, 2, 1, 2, 1]
    assert list(broker.dead_letters(QUEUE)) == []


def redrive_in_a_process(stack: Stack, broker: KafkaBroker, when: str, step: int) -> subprocess.Popen[bytes]:
    arguments = [stack.bootstrap_servers, broker.parts.topics.queue(""), when, str(step)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.broker.dead_letters.redrive_and_die", *arguments], cwd=ROOT
    )


#: Two batches, of two and of one: begun, messages, done, each.
STEPS = [("before", 1), *[("after", step) for step in range(1, 7)], ("amid", 2)]


@pytest.mark.parametrize(("when", "step"), STEPS)
def test_a_redrive_killed_at_any_step_and_run_again_sends_each_message_once(
    stack: Stack, broker: KafkaBroker, when: str, step: int
) -> None:
    dead = [message() for _ in range(3)]
    add_dead_letter(broker, dead)
    killed = redrive_in_a_process(stack, broker, when, step)
    assert killed.wait(DEADLINE_S) == -9

    to_send = broker.redrive(QUEUE).to_send
    assert broker.redrive(QUEUE, dry_run=False, reason="test", by="the second").sent == to_send
    interrupted = [r for r in broker.dead_letter_queue.history(QUEUE) if r.state is ResolutionState.BEGUN]
    assert len(interrupted) == (when == "amid" or step in (1, 2, 4, 5)) * (when != "before")
    assert all(resolution.by != "the second" for resolution in interrupted)
    sent = [(again.message_id, again.options["redrives"]) for again in on_queue(broker)]
    assert Counter(sent) == {(each.message_id, 1): 1 for each in dead}
    assert list(broker.dead_letters(QUEUE)) == []
    assert broker.redrive(QUEUE, dry_run=False, reason="test").selected == 0


def test_a_redrive_killed_again_and_again_at_another_step_each_time_sends_each_message_once(
    stack: Stack, broker: KafkaBroker
) -> None:
    dead = [message() for _ in range(12)]
    add_dead_letter(broker, dead)
    # Each leaves another kind of half-done batch to the next one.
    for when, step in (("amid", 2), ("after", 5), ("after", 1), ("amid", 5), ("after", 2)):
        killed = redrive_in_a_process(stack, broker, when, step)
        assert killed.wait(DEADLINE_S) == -9

    broker.redrive(QUEUE, dry_run=False, reason="test")
    assert Counter(again.message_id for again in on_queue(broker)) == {each.message_id: 1 for each in dead}
    assert list(broker.dead_letters(QUEUE)) == []


def test_a_rate_limit_sends_no_more_at_once_than_it_allows_in_a_second(
    broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    publish = broker.parts.publisher.publish

    def measured(records: list[Record]) -> dict[int, BaseException]:
        sizes.append(sum(record.topic == broker.parts.topics.queue(QUEUE) for record in records))
        return publish(records)

    monkeypatch.setattr(broker.parts.publisher, "publish", measured)
    add_dead_letter(broker, [message() for _ in range(7)])
    assert broker.redrive(QUEUE, dry_run=False, reason="test", rate_per_s=3.5).sent == 7
    assert [size for size in sizes if size] == [3, 3, 1]


def test_a_rate_that_is_no_rate_is_refused(broker: KafkaBroker) -> None:
    with pytest.raises(ValueError, match="rate_per_s=0"):
        broker.redrive(QUEUE, rate_per_s=0)
