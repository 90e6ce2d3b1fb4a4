"""A message that is given up without a thread of a worker: who waits for it hears it at once."""

from __future__ import annotations

import dataclasses
import json
import random
from contextlib import closing
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, MiddlewareError
from dramatiq.results import ResultFailure, ResultMissing, Results
from dramatiq.results.backends import StubBackend
from kafka.structs import OffsetAndMetadata, TopicPartition

from broker import KafkaBroker, default_middleware
from broker.dead_letters import dead_letter_record
from broker.offsets.commit_metadata import CommitState, Suspicion, encode
from broker.produce.record import Record
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.contract.signal_log import SignalLog
from tests.broker.dead_letters.samples import QUEUE
from tests.broker.topics.foreign_topics import configure
from tests.waiting import wait_until

DEADLINE_S = 90.0
TIMEOUT_MS = int(DEADLINE_S * 1000)
UNKNOWN: Message[Any] = Message(QUEUE, "nobody", (), {}, {})


class Refuses(Middleware):
    """Its hook raises the one error that Dramatiq does not swallow."""

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        raise MiddlewareError("no")


class Reports(Middleware):
    """Sends a message about each that is rejected, before and after."""

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        self._report(broker, message, "before")

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        self._report(broker, message, "after")

    def _report(self, broker: Broker, message: MessageProxy, when: str) -> None:
        broker.get_actor("report").send(when, message.message_id, type(message._exception).__name__)


class Application:
    """A broker whose results are stored in memory, with a hook of each kind."""

    def __init__(self, make_broker: MakeBroker, *, store_results: bool = False, **options: Any) -> None:
        self.results = StubBackend()
        self.log = SignalLog()
        self.reports: list[tuple[str, str, str]] = []
        middleware = [
            *default_middleware(), Results(backend=self.results, store_results=store_results),
            self.log, Reports(), Refuses(),
        ]  # fmt: skip
        self.broker: KafkaBroker = make_broker(middleware=middleware, **options)

        @dramatiq.actor(broker=self.broker, store_results=True, max_retries=3, min_backoff=1)
        def stored(text: str = "") -> None:
            raise RuntimeError("asked to")

        @dramatiq.actor(broker=self.broker, queue_name="reports")
        def report(when: str, message_id: str, error: str) -> None:
            self.reports.append((when, message_id, error))

        self.stored = stored

    def put(self, *raw: bytes) -> None:
        """Put records into the queue without a look at them."""
        topic = self.broker.parts.topics.queue(QUEUE)
        assert self.broker.parts.publisher.publish([Record(topic, each) for each in raw]) == {}

    def failure_of(self, message: Message[Any]) -> str:
        """What someone who waits for a message's result gets."""
        with pytest.raises(ResultFailure) as failure:
            message.get_result(backend=self.results, block=True, timeout=TIMEOUT_MS)
        return str(failure.value.orig_exc_type)


@pytest.fixture(scope="module")
def application(make_broker: MakeBroker, start_worker: StartWorker) -> Application:
    application = Application(make_broker)
    start_worker(application.broker)
    return application


@pytest.mark.parametrize(
    "message",
    [
        UNKNOWN,
        UNKNOWN.copy(options={"store_results": True, "result_ttl": 60_000}),
        Message(QUEUE, "stored", (), {}, {"throws": "no class"}),
        Message(QUEUE, "stored", (), {}, {"partition_key": 7}),
    ],
    ids=["unknown actor", "unknown actor, said so itself", "senseless throws", "a key that is no text"],
)
def test_who_waits_for_a_message_that_cannot_be_run_gets_the_failure(
    application: Application, message: Message[Any]
) -> None:
    message = dataclasses.replace(message, message_id=dramatiq.message.generate_unique_id())
    application.put(message.encode())
    is_unknown = message.actor_name == UNKNOWN.actor_name
    assert application.failure_of(message) == ("UnknownActor" if is_unknown else "InvalidMessage")
    [dead_letter] = application.broker.dead_letters(QUEUE, message_id=message.message_id)
    assert dead_letter.message == message


@pytest.mark.parametrize(
    "change",
    [
        {"options": ["no", "mapping"]}, {"kwargs": None}, {"args": "letters"}, {"more": 1},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_who_waits_for_a_damaged_message_gets_the_failure_when_its_name_can_be_read(
    application: Application, change: dict[str, Any]
) -> None:
    message = application.stored.message()
    raw = json.dumps({**message.asdict(), **change}).encode()
    application.put(raw)
    assert application.failure_of(message) == "InvalidMessage"
    assert json.loads(raw) in [
        json.loads(dead_letter.raw) for dead_letter in application.broker.dead_letters(QUEUE)
    ]


def test_a_message_that_declines_to_store_results_has_none(application: Application) -> None:
    declines = Message[Any](QUEUE, "nobody", (), {}, {"store_results": False})
    later = Message[Any](QUEUE, "nobody", (), {}, {})
    application.put(declines.encode())
    wait_until(lambda: "after_nack" in application.log.of(declines), deadline_s=DEADLINE_S, what="its hooks")
    application.put(later.encode())
    application.failure_of(later)
    with pytest.raises(ResultMissing):
        declines.get_result(backend=application.results)


def test_the_hooks_of_a_rejected_message_are_called_once_and_what_they_send_arrives(
    application: Application,
) -> None:
    unknown, hooks = Message[Any](QUEUE, "nobody", (), {}, {}), ["before_nack", "after_nack"]
    application.put(unknown.encode())
    application.broker.join(QUEUE, timeout=TIMEOUT_MS)
    application.broker.join("reports", timeout=TIMEOUT_MS)
    assert application.log.of(unknown) == hooks
    reports = [report for report in application.reports if report[1] == unknown.message_id]
    assert sorted(reports) == [(when, unknown.message_id, "UnknownActor") for when in ("after", "before")]
    assert len(list(application.broker.dead_letters(QUEUE, message_id=unknown.message_id))) == 1


def test_a_record_that_names_no_message_of_its_queue_calls_no_hook(application: Application) -> None:
    foreign, before = application.stored.message().copy(queue_name="reports"), len(application.log.signals)
    nameless = [b"\xff", b"[]", json.dumps({"queue_name": QUEUE, "actor_name": "stored"}).encode()]
    application.put(foreign.encode(), *nameless)
    last = Message[Any](QUEUE, "nobody", (), {}, {})
    application.put(last.encode())
    application.failure_of(last)
    application.broker.join(QUEUE, timeout=TIMEOUT_MS)
    nacked = [signal for signal in application.log.signals[before:] if signal[0].endswith("nack")]
    assert nacked == [("before_nack", last.message_id), ("after_nack", last.message_id)]
    with pytest.raises(ResultMissing):
        foreign.get_result(backend=application.results)


@pytest.mark.real_kafka("a topic's max.message.bytes")
def test_who_waits_for_a_delayed_message_that_its_queue_has_come_to_refuse_gets_the_failure(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    application = Application(make_broker, partitions=1)
    broker = application.broker
    sent = application.stored.send_with_options(args=("".join(random.choices("abcdef", k=9_000)),), delay=100)
    configure(broker, broker.parts.topics.queue(QUEUE), {"max.message.bytes": "2000"})
    start_worker(broker)
    assert application.failure_of(sent) == "MessageSizeTooLargeError"
    broker.join(QUEUE, timeout=TIMEOUT_MS)
    [dead_letter] = broker.dead_letters(QUEUE)
    assert dead_letter.message is not None
    assert dead_letter.message.message_id == sent.message_id
    assert application.log.of(sent)[-2:] == ["before_nack", "after_nack"]


@pytest.mark.real_kafka("keep commit metadata")
def test_who_waits_for_a_message_that_kills_its_workers_gets_the_failure(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    application = Application(make_broker, partitions=1)
    broker = application.broker
    sent = application.stored.send()
    # As its third dead worker left it.
    killed = CommitState(0, 0, incomplete=(0,), suspicions={0: Suspicion(2, running=True)})
    partition = TopicPartition(broker.parts.topics.queue(QUEUE), 0)
    with closing(broker.parts.clients.consumer(group_id=broker.parts.group_of(QUEUE))) as kafka:
        kafka.assign([partition])
        kafka.commit({partition: OffsetAndMetadata(0, encode(killed), -1)})
    start_worker(broker)
    assert application.failure_of(sent) == "PoisonMessage"
    broker.join(QUEUE, timeout=TIMEOUT_MS)
    assert [dead_letter.message for dead_letter in broker.dead_letters(QUEUE)] == [sent]
    assert application.log.of(sent)[-2:] == ["before_nack", "after_nack"]


@pytest.mark.real_kafka("refuse a large record")
def test_a_callback_that_kafka_refuses_does_not_take_the_place_of_the_tasks_own_error(
    make_broker: MakeBroker, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_broker()

    @dramatiq.actor(broker=broker, max_retries=0, on_failure="failed")
    def task(text: str) -> None:
        raise RuntimeError("asked to")

    dramatiq.actor(broker=broker, actor_name="failed", queue_name="other")(lambda *_: None)
    sent = task.send("x" * 1_048_150)
    start_worker(broker)
    broker.join(QUEUE, timeout=TIMEOUT_MS)
    # A record that Kafka refuses makes kafka-python send what was on its way with it twice, at times.
    dead_letters = {
        (each.message and each.message.message_id, each.error) for each in broker.dead_letters(QUEUE)
    }
    assert dead_letters == {(sent.message_id, "asked to")}
    assert f"A record for {broker.parts.topics.queue('other')}" in caplog.text


def test_a_dead_letter_that_cannot_be_made_at_first_holds_its_delivery(
    make_broker: MakeBroker, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dead_letter_record
    failures = [ZeroDivisionError("a mistake in here") for _ in range(2)]

    def fail_at_first(*args: Any, **kwargs: Any) -> Record:
        if failures:
            raise failures.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr("broker.dead_letters.writer.dead_letter_record", fail_at_first)
    broker = make_broker()
    dramatiq.actor(broker=broker, actor_name="task")(lambda: None)
    broker.enqueue(UNKNOWN)
    start_worker(broker)
    wait_until(lambda: list(broker.dead_letters(QUEUE)), deadline_s=DEADLINE_S, what="the dead letter")
    broker.join(QUEUE, timeout=TIMEOUT_MS)
    assert failures == []
    assert [dead_letter.message for dead_letter in broker.dead_letters(QUEUE)] == [UNKNOWN]
