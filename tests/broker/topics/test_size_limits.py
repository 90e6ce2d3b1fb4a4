"""A message that a topic does not take is refused at once with the sizes, or becomes a dead letter."""

from __future__ import annotations

import random
import re
import string
import threading
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq import pipeline

from broker import DeadLetter, EnqueueFailed, KafkaBroker, PermanentError, default_middleware
from broker.kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from broker.produce.record import Record
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.topics.foreign_topics import QUEUE, configure, create
from tests.waiting import wait_until

pytestmark = pytest.mark.real_kafka("a topic's max.message.bytes")

DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = int(DEADLINE_S * 1000)
LIMIT = 10_000
#: With what a first failure adds, all its texts included, it is larger than LIMIT; with its counts it is not.
LARGE = 9_300


def text(length: int) -> str:
    return "".join(random.choices(string.ascii_letters, k=length))


@pytest.fixture
def broker(make_broker: MakeBroker) -> KafkaBroker:
    """A broker with a queue that takes 10 kB."""
    broker = make_broker()
    create(broker, broker.parts.topics.queue(QUEUE), {"max.message.bytes": str(LIMIT)})
    return broker


def declare(
    broker: KafkaBroker, run: Callable[[str], object] = lambda content: None, **options: Any
) -> dramatiq.Actor[[str], None]:
    @dramatiq.actor(broker=broker, queue_name=QUEUE, **options)
    def task(content: str) -> None:
        run(content)

    return task


class FailsOnce:
    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, content: str) -> None:
        self.runs += 1
        if self.runs == 1:
            raise RuntimeError(text(5_000))


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, {}),
        ({"key_order": "ordered"}, {"partition_key": "user-7"}),
        ({"key_order": "relaxed"}, {"partition_key": "user-7"}),
    ],
    ids=["no key", "ordered", "relaxed"],
)
def test_a_message_that_just_fits_is_retried_with_less_text_about_its_failure(
    broker: KafkaBroker, start_worker: StartWorker, options: dict[str, Any], sent: dict[str, Any]
) -> None:
    run = FailsOnce()
    task = declare(broker, run, max_retries=3, min_backoff=1, max_backoff=1, **options)
    task.send_with_options(args=(text(LARGE),), **sent)
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert run.runs == 2
    assert list(broker.dead_letters(QUEUE)) == []


@pytest.mark.parametrize("key", [None, "user-7"])
def test_a_message_that_fits_to_the_last_byte_is_sent_and_dead_lettered_whole_when_it_cannot_be_retried(
    broker: KafkaBroker, start_worker: StartWorker, key: str | None
) -> None:
    run = FailsOnce()
    task = declare(broker, run, max_retries=3, min_backoff=1, max_backoff=1, key_order="ordered")
    options: dict[str, Any] = {} if key is None else {"partition_key": key}
    longest = longest_that_is_sent(task, options)
    assert longest > LIMIT - 700
    broker.flush(QUEUE)
    sent = task.send_with_options(args=(text(longest),), **options)
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    (dead_letter,) = broker.dead_letters(QUEUE)
    assert dead_letter.message is not None
    assert dead_letter.message.args == sent.args
    assert dead_letter.error_type == "MessageSizeTooLargeError"
    assert "takes 10,000 bytes" in dead_letter.error
    size = re.search(r"its record has ([0-9,]+) bytes", dead_letter.error)
    assert size is not None
    # The texts about its failure, of 5,000 characters each, are left out of its retry.
    assert LIMIT < int(size[1].replace(",", "")) < LIMIT + 1_000
    assert "the task had failed: RuntimeError: " in dead_letter.error
    assert "The task had failed:" in dead_letter.traceback
    assert "raise RuntimeError(text(5_000))" in dead_letter.traceback
    assert "RuntimeError" in dead_letter.message.options["last_error"]
    assert len(dead_letter.message.options["last_error"]) > 1_000
    assert run.runs == 1


def longest_that_is_sent(task: dramatiq.Actor[[str], None], options: dict[str, Any]) -> int:
    fits, too_long = 0, LIMIT
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        try:
            task.send_with_options(args=(text(middle),), **options)
            fits = middle
        except EnqueueFailed as e:
            assert "takes 10,000 bytes (its max.message.bytes)" in str(e)  # noqa: PT017
            too_long = middle
    return fits


@pytest.mark.parametrize("options", [{}, {"delay": 1}, {"delay": 60_000, "partition_key": "user-7"}])
def test_a_message_that_its_queue_does_not_take_is_refused_with_the_sizes_now_or_delayed(
    broker: KafkaBroker, options: dict[str, Any]
) -> None:
    task = declare(broker)
    for _ in range(2):
        with pytest.raises(
            EnqueueFailed, match=r"has 1\d,\d\d\d bytes, and the topic .* takes 10,000 bytes"
        ) as e:
            task.send_with_options(args=(text(LIMIT),), **options)
        assert "raise the topic's max.message.bytes" in str(e.value)
        assert "check that Kafka is reachable" not in str(e.value)
    task.send_with_options(args=("small",), **options)
    assert broker.count(QUEUE) == 1


def test_a_limit_that_was_raised_counts_without_a_restart(broker: KafkaBroker) -> None:
    task = declare(broker)
    with pytest.raises(EnqueueFailed):
        task.send(text(LIMIT))
    configure(broker, broker.parts.topics.queue(QUEUE), {"max.message.bytes": "20000"})

    def sent() -> bool:
        try:
            task.send(text(LIMIT))
        except EnqueueFailed:
            return False
        return True

    wait_until(sent, deadline_s=DEADLINE_S, what="the message to be taken")


def test_a_record_that_is_compressed_is_measured_by_kafka_alone(make_broker: MakeBroker) -> None:
    broker = make_broker(client_options={"compression_type": "gzip"})
    create(broker, broker.parts.topics.queue(QUEUE), {"max.message.bytes": str(LIMIT)})
    task = declare(broker)
    task.send("x" * 100_000)
    with pytest.raises(EnqueueFailed, match="takes 10,000 bytes"):
        task.send(text(100_000))
    task.send("small")
    assert broker.count(QUEUE) == 2


def test_a_due_message_that_its_queue_has_come_to_refuse_is_dead_lettered_told_and_can_be_redriven(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    told: list[DeadLetter] = []
    broker = make_broker(middleware=default_middleware(on_dead_letter=told.append))
    topic = broker.parts.topics.queue(QUEUE)
    create(broker, topic, {"max.message.bytes": str(LIMIT)})
    done: list[str] = []
    task = declare(broker, done.append)
    content = text(LARGE)
    broker.enqueue(task.message(content), delay=100)
    broker.enqueue(task.message("small"), delay=100)
    configure(broker, topic, {"max.message.bytes": "2000"})
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert done == ["small"]
    (dead_letter,) = broker.dead_letters(QUEUE)
    assert dead_letter.error_type == "MessageSizeTooLargeError"
    assert "takes 2,000 bytes" in dead_letter.error
    assert told
    assert {one.message and one.message.args for one in told} == {(content,)}

    configure(broker, topic, {"max.message.bytes": str(LIMIT)})
    assert redriven(broker) == 1
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert done == ["small", content]


def redriven(broker: KafkaBroker) -> int:
    resolved = broker.redrive(QUEUE, dry_run=False, reason="its topic takes it now")
    assert not resolved.refused
    return resolved.sent


def test_a_message_that_waits_in_its_lane_and_can_never_come_back_frees_it_and_is_dead_lettered(
    broker: KafkaBroker, start_worker: StartWorker
) -> None:
    topic = broker.parts.topics.queue(QUEUE)
    began, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def run(content: str) -> None:
        if not began.is_set():
            began.set()
            assert go_on.wait(DEADLINE_S)
            raise RuntimeError("not yet")
        done.append(content)

    task = declare(broker, run, max_retries=3, min_backoff=5_000, max_backoff=5_000, key_order="ordered")
    first = text(LARGE - 1_000)
    for content in (first, "second", "third"):
        task.send_with_options(args=(content,), partition_key="user-7")
    start_worker(broker)
    assert began.wait(DEADLINE_S)
    go_on.set()
    wait_until(
        lambda: waits(broker) == 3, deadline_s=DEADLINE_S, what="the retry to wait, and those behind it"
    )
    configure(broker, topic, {"max.message.bytes": "2000"})
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert done == ["second", "third"]
    (dead_letter,) = broker.dead_letters(QUEUE)
    assert dead_letter.message is not None
    assert dead_letter.message.args == (first,)
    assert dead_letter.error_type == "MessageSizeTooLargeError"


def waits(broker: KafkaBroker) -> int:
    return broker.parts.lane_backlog.count(QUEUE)


def test_a_pipelines_next_step_that_its_queue_does_not_take_becomes_a_dead_letter_of_the_step_before(
    broker: KafkaBroker, start_worker: StartWorker
) -> None:
    @dramatiq.actor(broker=broker, queue_name="first", max_retries=3)
    def first() -> str:
        return text(LIMIT)

    second = declare(broker)
    pipeline([first.message(), second.message_with_options()], broker=broker).run()
    start_worker(broker)
    broker.join("first", timeout=JOIN_TIMEOUT_MS)
    (dead_letter,) = broker.dead_letters("first")
    assert dead_letter.error_type == "MessageSizeTooLargeError"
    assert "takes 10,000 bytes" in dead_letter.error


def test_a_failure_callback_that_its_queue_does_not_take_gives_one_dead_letter_and_no_retry(
    broker: KafkaBroker, start_worker: StartWorker
) -> None:
    runs: list[str] = []

    def run(content: str) -> None:
        runs.append(content)
        raise RuntimeError("broken")

    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def failed(message: dict[str, Any], error: dict[str, str]) -> None: ...

    task = declare(broker, run, max_retries=2, min_backoff=1, max_backoff=1)
    content = text(LARGE)  # its retry fits: it says less about its failure
    task.send_with_options(args=(content,), on_failure=failed)
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    (dead_letter,) = broker.dead_letters(QUEUE)
    assert dead_letter.error_type == "MessageSizeTooLargeError"
    assert runs == [content]


def test_a_dead_letter_keeps_to_the_limit_of_its_topic_by_saying_less_and_its_message_whole(
    broker: KafkaBroker, start_worker: StartWorker
) -> None:
    create(broker, broker.parts.topics.dead_letters(QUEUE), {"max.message.bytes": str(LIMIT)})

    def fail(content: str) -> None:
        raise PermanentError(text(3_000))

    contents = {text(8_800) for _ in range(60)}
    task = declare(broker, fail)
    broker.enqueue_many([task.message(content) for content in contents])
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    dead_letters = list(broker.dead_letters(QUEUE))
    assert {dead_letter.message.args[0] for dead_letter in dead_letters if dead_letter.message} == contents
    assert {dead_letter.error_type for dead_letter in dead_letters} == {"PermanentError"}
    assert {dead_letter.why_not_redrivable for dead_letter in dead_letters} == {None}
    # What was done about so many would not fit into one record of that topic.
    assert broker.discard(QUEUE, dry_run=False, reason="read").selected == 60
    assert list(broker.dead_letters(QUEUE)) == []


def test_a_dead_letter_says_less_when_its_topic_has_come_to_take_less(
    broker: KafkaBroker, start_worker: StartWorker
) -> None:
    def fail(content: str) -> None:
        raise PermanentError(text(3_000))

    task = declare(broker, fail)
    task.send("first")
    start_worker(broker)
    wait_until(lambda: list(broker.dead_letters(QUEUE)), deadline_s=DEADLINE_S, what="the first dead letter")
    configure(broker, broker.parts.topics.dead_letters(QUEUE), {"max.message.bytes": str(LIMIT)})
    task.send("second")
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    dead_letters = list(broker.dead_letters(QUEUE))
    assert {dead_letter.message.args for dead_letter in dead_letters if dead_letter.message} == {
        ("first",),
        ("second",),
    }


def test_a_record_that_no_producer_sends_is_refused_beforehand_whatever_its_topic_takes(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()
    topic = broker.parts.topics.queue(QUEUE)
    create(broker, topic, {"max.message.bytes": str(2 * MAX_DEAD_LETTER_BYTES)})

    refusals = broker.parts.publisher.refusals(
        [Record(topic, b"small"), Record(topic, bytes(MAX_DEAD_LETTER_BYTES + 1))]
    )

    assert set(refusals) == {1}
    assert "no client of this broker sends more than" in str(refusals[1])
