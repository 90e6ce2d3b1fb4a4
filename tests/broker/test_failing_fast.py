"""Joins that fail fast, where messages fail in other processes, at other times or of more than themselves."""

from __future__ import annotations

import gc
import logging
import weakref

import dramatiq
import pytest

from broker import KafkaBroker, MessageFailed
from broker.produce.record import Record
from tests.broker.conftest import MakeBroker, StartWorker
from tests.waiting import wait_until

QUEUE = "default"
JOIN_TIMEOUT_MS = 60_000


class Broken(Exception):
    """A task's own error."""


class Held:
    """Something large that a task has in its hands."""


def declare(broker: KafkaBroker) -> dramatiq.Actor[[str], None]:
    @dramatiq.actor(broker=broker, actor_name="task", max_retries=0)
    def task(text: str) -> None:
        raise Broken(text)

    return task


def test_the_error_of_another_process_is_told_from_the_dead_letter(
    make_broker: MakeBroker, start_worker: StartWorker, namespace: str
) -> None:
    sender, other = make_broker(namespace=namespace), make_broker(namespace=namespace)
    message = declare(sender).send("far away")
    declare(other)
    start_worker(other)
    with pytest.raises(MessageFailed, match=r"Broken: far away") as failed:
        sender.join(QUEUE, timeout=JOIN_TIMEOUT_MS, fail_fast=True)
    assert failed.value.message_id == message.message_id
    assert (failed.value.error_type, failed.value.error) == ("Broken", "far away")
    assert "raise Broken(text)" in failed.value.traceback
    sender.join(QUEUE, timeout=JOIN_TIMEOUT_MS, fail_fast=True)  # it has been told


def test_what_failed_before_the_broker_was_made_or_was_told_or_flushed_is_not_raised(
    make_broker: MakeBroker, start_worker: StartWorker, namespace: str
) -> None:
    before = make_broker(namespace=namespace)
    declare(before).send("long ago")
    worker = start_worker(before)
    before.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    worker.stop()

    broker = make_broker(namespace=namespace)
    task = declare(broker)
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS, fail_fast=True)
    for text in ("one", "two"):
        task.send(text)
        with pytest.raises(Broken, match=text):
            broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS, fail_fast=True)
    task.send("dropped")
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    broker.parts.failures.forget(QUEUE)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS, fail_fast=True)


def test_a_record_that_is_no_message_fails_a_join_too(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker()
    declare(broker)
    assert broker.parts.publisher.publish([Record(broker.parts.topics.queue(QUEUE), b"no message")]) == {}
    start_worker(broker)
    with pytest.raises(MessageFailed, match=r"InvalidMessage: not a Dramatiq message") as failed:
        broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS, fail_fast=True)
    assert failed.value.message_id is None


def test_an_error_keeps_its_cause_and_its_traceback_as_text_and_nothing_of_its_task(
    make_broker: MakeBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="dramatiq")  # pytest keeps the tracebacks of what is logged
    broker = make_broker(fail_fast_default=True)
    held: list[weakref.ref[Held]] = []

    @dramatiq.actor(broker=broker, max_retries=0)
    def task() -> None:
        large = Held()
        held.append(weakref.ref(large))
        try:
            raise KeyError("inner")
        except KeyError as e:
            raise Broken("outer") from e

    task.send()
    worker = start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS, fail_fast=False)
    worker.stop()
    gc.collect()
    assert held[0]() is None, "what is kept for a join must not keep a task's variables alive"
    with pytest.raises(Broken) as failed:
        broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert isinstance(failed.value.__cause__, KeyError)
    (note,) = failed.value.__notes__
    assert 'raise KeyError("inner")' in note


def failures_alive(broker: KafkaBroker, start_worker: StartWorker, *, count: int) -> int:
    """How many of ``count`` errors are alive once their messages have failed and their worker has stopped."""
    held: list[weakref.ref[Broken]] = []

    @dramatiq.actor(broker=broker, max_retries=0)
    def task() -> None:
        error = Broken("with much in it")
        held.append(weakref.ref(error))
        raise error

    broker.enqueue_many([task.message() for _ in range(count)])
    worker = start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS, fail_fast=False)
    worker.stop()
    gc.collect()
    assert len(held) == count
    return sum(error() is not None for error in held)


def test_no_error_of_a_message_is_kept_before_a_join_fails_fast(
    make_broker: MakeBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="dramatiq")
    broker = make_broker()
    assert failures_alive(broker, start_worker, count=20) == 0
    with pytest.raises(MessageFailed, match="Broken: with much in it"):
        broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS, fail_fast=True)


def test_few_errors_are_kept_for_a_join_that_fails_fast_and_none_after_it(
    make_broker: MakeBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="dramatiq")
    broker = make_broker(fail_fast_default=True)
    assert 0 < failures_alive(broker, start_worker, count=20) <= 8
    with pytest.raises(Broken, match="with much in it") as failed:
        broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    raised = weakref.ref(failed.value)
    del failed

    def is_gone() -> bool:
        gc.collect()
        return raised() is None

    # A thread of the worker that ends may still hold the last delivery.
    wait_until(is_gone, deadline_s=30, what="the raised error to be freed")
