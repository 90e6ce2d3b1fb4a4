"""Enqueueing on Kafka: the bulk form, and what happens while Kafka is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.errors import BrokerConnectionError, BrokerError, ConnectionFailed

from broker import EnqueueFailed, KafkaBroker, KafkaUnavailable
from dev.ports import free_port
from dev.server import Server
from tests.broker.contract.backends import KafkaBackend
from tests.waiting import wait_until

DEADLINE_S = 30
ENQUEUE_TIMEOUT_MS = 1_000
#: Where no Kafka is, nobody has to wait for an answer.
SHORT_TIMEOUT_MS = 200
#: One after the other, their timeouts would add up to far more than the deadline.
CALLERS = 3 * DEADLINE_S * 1000 // ENQUEUE_TIMEOUT_MS


@pytest.fixture
def broker(kafka_backend: KafkaBackend) -> Iterator[KafkaBroker]:
    broker = kafka_backend.broker()
    yield broker
    broker.close()


@pytest.fixture
def lonely_broker(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """A broker whose Kafka does not exist."""
    timeout_ms = getattr(request, "param", SHORT_TIMEOUT_MS)
    broker = KafkaBroker(
        f"127.0.0.1:{free_port()}",
        enqueue_timeout_ms=timeout_ms,
        client_options={"bootstrap_timeout_ms": timeout_ms},
    )
    yield broker
    broker.close()


def message(number: int = 0, **options: object) -> Message[None]:
    return Message("default", "task", (number,), {}, options)


def test_many_messages_are_enqueued_with_one_call(broker: KafkaBroker) -> None:
    broker.declare_queue("default")
    messages = [message(number) for number in range(1_000)]
    assert broker.enqueue_many(messages) == messages
    assert broker.count("default") == 1_000


def test_a_message_that_kafka_refuses_is_named_and_the_others_are_enqueued(broker: KafkaBroker) -> None:
    broker.declare_queue("default")
    too_large: Message[None] = Message("default", "task", ("x" * 5_000_000,), {}, {})
    with pytest.raises(EnqueueFailed) as failed:
        broker.enqueue_many([message(), too_large, message()])
    assert set(failed.value.failures) == {too_large.message_id}
    assert broker.count("default") == 2


def test_making_a_broker_and_declaring_actors_on_it_needs_no_kafka(lonely_broker: KafkaBroker) -> None:
    dramatiq.actor(broker=lonely_broker, actor_name="task")(lambda: None)
    assert lonely_broker.get_declared_queues() == {"default"}


@pytest.mark.parametrize("delay", [None, 1_000])
def test_enqueueing_without_a_kafka_raises_dramatiqs_connection_error_and_names_the_message(
    lonely_broker: KafkaBroker, delay: int | None
) -> None:
    lost = message()
    with pytest.raises(BrokerConnectionError) as raised:
        lonely_broker.enqueue(lost, delay=delay)
    assert isinstance(raised.value, EnqueueFailed)
    assert isinstance(raised.value, BrokerError)
    assert set(raised.value.failures) == {lost.message_id}
    assert lost.message_id in str(raised.value)


@pytest.mark.parametrize("lonely_broker", [ENQUEUE_TIMEOUT_MS], indirect=True)
def test_many_threads_that_enqueue_without_a_kafka_all_fail_in_their_own_time(
    lonely_broker: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # the second time, too, nobody waits for the others
        fail_together(lonely_broker, caplog)


def test_many_threads_that_enqueue_while_kafka_is_frozen_all_fail_in_their_own_time(
    kafka_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    threads_before = set(threading.enumerate())
    connected, new = (
        KafkaBroker(kafka_server.address, enqueue_timeout_ms=ENQUEUE_TIMEOUT_MS) for _ in range(2)
    )
    enqueue_when_possible(connected)
    kafka_server.pause()
    for broker in (connected, connected, new):
        fail_together(broker, caplog)
    kafka_server.resume()
    for broker in (connected, new):
        enqueue_when_possible(broker)
        broker.close()
    wait_until(
        lambda: set(threading.enumerate()) <= threads_before,
        deadline_s=DEADLINE_S,
        what="the threads of the producers that were given up to end",
    )


def fail_together(broker: KafkaBroker, caplog: pytest.LogCaptureFixture) -> None:
    """Let many threads enqueue while Kafka is away: nobody waits for another's timeout, and few lines are
    logged.
    """

    def fail(number: int) -> None:
        with pytest.raises(EnqueueFailed):
            broker.enqueue(message(number))

    caplog.clear()
    threads = ThreadPoolExecutor(CALLERS)
    calls = [threads.submit(fail, number) for number in range(CALLERS)]
    failed, waiting = wait(calls, timeout=DEADLINE_S)
    threads.shutdown(wait=False, cancel_futures=True)
    assert not waiting
    for call in failed:
        call.result()
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) < 2 * CALLERS, "a log flood"


def enqueue_when_possible(broker: KafkaBroker) -> None:
    def enqueued() -> bool:
        try:
            broker.enqueue(message())
        except EnqueueFailed:
            return False
        return True

    wait_until(enqueued, deadline_s=DEADLINE_S, what="Kafka to take messages")


def test_everything_else_that_needs_kafka_raises_dramatiqs_connection_error(
    lonely_broker: KafkaBroker,
) -> None:
    lonely_broker.declare_queue("default")
    for ask in (
        lambda: lonely_broker.ping(0.5),
        lambda: lonely_broker.join("default", timeout=1_000),
        lambda: lonely_broker.flush("default"),
        lambda: lonely_broker.consume("default"),
        lambda: list(lonely_broker.dead_letters("default")),
    ):
        with pytest.raises(ConnectionFailed) as raised:
            ask()
        assert isinstance(raised.value, KafkaUnavailable)
        assert isinstance(raised.value, BrokerConnectionError)


def test_a_broker_whose_kafka_stopped_answering_says_so_and_recovers_with_it(kafka_server: Server) -> None:
    broker = KafkaBroker(kafka_server.address, enqueue_timeout_ms=ENQUEUE_TIMEOUT_MS)
    broker.declare_queue("default")
    enqueue_when_possible(broker)
    kafka_server.pause()
    with pytest.raises(EnqueueFailed):
        broker.enqueue(message())
    kafka_server.resume()
    enqueue_when_possible(broker)
    broker.close()


def test_threads_share_a_broker(broker: KafkaBroker) -> None:
    broker.declare_queue("default")

    def enqueue() -> None:
        for number in range(25):
            broker.enqueue(message(number))

    threads = [threading.Thread(target=enqueue) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert broker.count("default") == 200


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message("default", "task", (object(),), {}, {}), "JSON"),
        (Message("no such name!", "task", (), {}, {}), "only ASCII letters"),
    ],
)
def test_a_message_that_cannot_be_written_down_is_refused_before_anything_is_sent(
    broker: KafkaBroker, message: Message[None], reason: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=reason):
        broker.enqueue(message)


@pytest.mark.parametrize("delay", [float("nan"), 1_795_000_000_000])
def test_a_delay_that_makes_no_sense_is_refused(broker: KafkaBroker, delay: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        broker.enqueue(message(), delay=delay)  # type: ignore[arg-type]
