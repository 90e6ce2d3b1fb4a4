"""What Kafka refuses for good harms nothing else."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import dramatiq
import pytest

from broker import EnqueueFailed, KafkaBroker
from dev.stack import Stack
from tests.broker.dead_letters.samples import on_queue

#: More than Kafka takes by default, and less than the producer itself refuses.
TOO_LARGE = "x" * 2_000_000


@pytest.fixture
def task(stack: Stack, namespace: str) -> dramatiq.Actor[[str], None]:
    broker = KafkaBroker(stack.bootstrap_servers, namespace=namespace)

    @dramatiq.actor(broker=broker)
    def task(text: str) -> None: ...

    return task


@pytest.mark.real_kafka("a limit on a record's size")
def test_a_message_that_is_too_large_leaves_the_broker_as_it_was(task: dramatiq.Actor[[str], None]) -> None:
    for _ in range(2):
        with pytest.raises(EnqueueFailed, match="MessageSizeTooLarge") as refused:
            task.send(TOO_LARGE)
        assert re.search(
            r"has 2,000,\d\d\d bytes, and the topic .* takes 1,048,588 bytes", str(refused.value)
        )
        assert "Enqueue again" not in str(refused.value)
        task.send("small")
    assert isinstance(task.broker, KafkaBroker)
    assert task.broker.count("default") == 2
    task.broker.close()


@pytest.mark.real_kafka("a limit on a record's size")
def test_a_message_is_not_taken_for_later_that_its_queue_will_never_take(
    task: dramatiq.Actor[[str], None],
) -> None:
    broker = task.broker
    assert isinstance(broker, KafkaBroker)
    small = task.message("small")
    just_too_large = task.message("x" * 1_060_000)  # the delayed topic would take it, with its headers
    with pytest.raises(EnqueueFailed, match="MessageSizeTooLarge") as refused:
        broker.enqueue_many([just_too_large, small], delay=60_000)
    assert set(refused.value.failures) == {just_too_large.message_id}
    assert "takes 1,048,588 bytes" in str(refused.value)
    assert [waiting.message_id for waiting in broker.delayed("default").messages] == [small.message_id]
    broker.close()


@pytest.mark.real_kafka("a limit on a record's size")
def test_of_many_messages_only_those_fail_that_are_too_large(task: dramatiq.Actor[[str], None]) -> None:
    broker = task.broker
    assert isinstance(broker, KafkaBroker)
    messages = [task.message(TOO_LARGE if number in (3, 77) else "small") for number in range(100)]
    with pytest.raises(EnqueueFailed) as failed:
        broker.enqueue_many(messages)
    assert set(failed.value.failures) == {messages[3].message_id, messages[77].message_id}
    arrived = {message.message_id for message in on_queue(broker)}
    assert arrived == {message.message_id for message in messages} - set(failed.value.failures)
    broker.close()


@pytest.mark.real_kafka("a limit on a record's size")
def test_what_other_threads_send_beside_it_arrives(task: dramatiq.Actor[[str], None]) -> None:
    broker = task.broker
    assert isinstance(broker, KafkaBroker)

    def send_too_large() -> None:
        with pytest.raises(EnqueueFailed):
            task.send(TOO_LARGE)

    def send_small() -> set[str]:
        return {task.send("small").message_id for _ in range(20)}

    with ThreadPoolExecutor(6) as threads:
        small = [threads.submit(send_small) for _ in range(4)]
        for end in [threads.submit(send_too_large) for _ in range(2)]:
            end.result()
        sent = set[str]().union(*(end.result() for end in small))
    assert {message.message_id for message in on_queue(broker)} == sent
    broker.close()


def test_a_message_that_not_even_the_producer_takes_is_refused_with_its_size(
    task: dramatiq.Actor[[str], None],
) -> None:
    with pytest.raises(EnqueueFailed, match=r"has 5,000,\d\d\d bytes, and the topic .* takes"):
        task.send("x" * 5_000_000)
    assert isinstance(task.broker, KafkaBroker)
    task.broker.close()
