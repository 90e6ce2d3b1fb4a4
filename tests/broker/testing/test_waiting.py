"""pending(), delayed(), dead(), and the broker's own join, cancel and flush without a worker thread."""

from __future__ import annotations

import time
from datetime import timedelta

import dramatiq
import pytest
from dramatiq.errors import QueueJoinTimeout

from broker import KafkaBroker, Outcome
from broker.process import clock
from broker.testing import advance, assert_dead, dead, delayed, drain, pending
from tests.broker.testing.conftest import Runs


@pytest.fixture
def work(kafka_broker: KafkaBroker, runs: Runs) -> dramatiq.Actor[..., None]:
    return dramatiq.actor(actor_name="work")(runs.append)


def test_what_was_sent_is_pending_until_it_has_run(work: dramatiq.Actor[..., None]) -> None:
    work.send(1)
    assert [message.args for message in pending()] == [(1,)]
    assert [message.args for message in pending("default")] == [(1,)]
    drain()
    assert pending() == []


def test_a_delayed_message_is_pending_from_its_time_on(work: dramatiq.Actor[..., None]) -> None:
    later = work.send_with_options(args=(2,), delay=timedelta(hours=2))
    sooner = work.send_with_options(args=(1,), delay=timedelta(hours=1))
    assert [message.message_id for message in delayed()] == [sooner.message_id, later.message_id]
    assert pending() == []
    advance(hours=1)
    assert [message.message_id for message in delayed()] == [later.message_id]
    assert [message.message_id for message in pending()] == [sooner.message_id]


def test_a_retry_is_delayed_and_a_failed_message_is_dead() -> None:
    @dramatiq.actor(max_retries=1, min_backoff=60_000)
    def fail() -> None:
        raise ValueError

    message = fail.send()
    drain(raise_errors=False)
    assert [retry.message_id for retry in delayed()] == [message.message_id]
    assert dead() == []
    advance(hours=1)
    drain(raise_errors=False)
    assert delayed() == []
    assert [letter.message and letter.message.message_id for letter in dead("default")] == [
        message.message_id
    ]


def test_join_drains_and_lets_the_time_of_delays_and_retries_pass(
    runs: Runs, kafka_broker: KafkaBroker
) -> None:
    @dramatiq.actor(max_retries=3)
    def work() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ConnectionError

    began_s = time.monotonic()
    work.send_with_options(delay=timedelta(days=1))
    kafka_broker.join("default")
    assert len(runs) == 3
    assert time.monotonic() - began_s < 60


def test_join_ends_at_its_timeout(work: dramatiq.Actor[..., None], kafka_broker: KafkaBroker) -> None:
    work.send_with_options(args=(1,), delay=timedelta(days=1))
    with pytest.raises(QueueJoinTimeout):
        kafka_broker.join("default", timeout=10_000)


def test_join_never_waits_for_what_cannot_run(
    work: dramatiq.Actor[..., None], kafka_broker: KafkaBroker
) -> None:
    work.send(1)
    kafka_broker.consumption_paused = True
    with pytest.raises(QueueJoinTimeout, match=r"1 message\(s\) are left"):
        kafka_broker.join("default")


def test_join_gives_up_on_a_task_that_always_sends_itself_later(
    kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.testing.kit.MAX_JOIN_STEPS", 10)

    def work() -> None:
        actor.send_with_options(delay=1_000)

    actor = dramatiq.actor(work)
    actor.send()
    with pytest.raises(QueueJoinTimeout):
        kafka_broker.join("default")


def test_join_that_fails_fast_raises_the_tasks_own_error(kafka_broker: KafkaBroker) -> None:
    error = ValueError("the reason")

    @dramatiq.actor(max_retries=0)
    def fail() -> None:
        raise error

    fail.send()
    with pytest.raises(ValueError, match="the reason") as caught:
        kafka_broker.join("default", fail_fast=True)
    assert caught.value is error


def test_a_delayed_message_can_be_cancelled_without_a_worker_thread(
    work: dramatiq.Actor[..., None], kafka_broker: KafkaBroker, runs: Runs
) -> None:
    message = work.send_with_options(args=(1,), delay=timedelta(hours=1))
    began_ms = clock.wall_ms()
    assert kafka_broker.cancel(message.message_id) is Outcome.CANCELLED
    assert clock.wall_ms() == began_ms
    advance(hours=2)
    assert drain() == 0


def test_flush_drops_what_waits_and_runs_nothing(
    work: dramatiq.Actor[..., None], kafka_broker: KafkaBroker, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    work.send(0)
    drain()
    work.send(1)
    work.send_with_options(args=(2,), delay=1000)
    kafka_broker.flush_all()
    assert (pending(), delayed()) == ([], [])
    advance(hours=1)
    assert drain() == 0
    assert not [record for record in caplog.records if "have not confirmed" in record.getMessage()]


def test_a_redriven_dead_letter_runs_again(kafka_broker: KafkaBroker, runs: Runs) -> None:
    @dramatiq.actor(max_retries=0)
    def work() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError

    work.send()
    drain(raise_errors=False)
    assert_dead(work, ValueError)
    kafka_broker.redrive("default", dry_run=False, reason="mended")
    assert drain() == 1
    assert dead() == []
