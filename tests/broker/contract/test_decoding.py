"""Records that no worker can run: each becomes a dead letter with its bytes and origin, and stops nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, Worker
from dramatiq.middleware import CurrentMessage

from broker import DeadLetter, KafkaBroker
from broker.consume.decoding import read_message
from broker.deliveries.delivery import Origin
from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.conftest import WORKER_THREADS, WORKER_TIMEOUT_MS

QUEUE = "default"
JOIN_TIMEOUT_MS = 60_000


WRONG_VALUES: dict[str, tuple[Any, ...]] = {
    "queue_name": (None, 5, [], {}),
    "actor_name": (None, 5, [], {}),
    "args": (None, 5, "abc", {"a": 1}, True),
    "kwargs": (None, 5, "abc", [], True),
    "options": (None, 5, "abc", [], True),
    "message_id": (True, [], {}),
}


def encoded(without: str = "", **instead: Any) -> bytes:
    """A message of the actor "work" as it is on the wire, with some fields changed and one left out."""
    fields = Message(QUEUE, "work", ("bad",), {}, {}).asdict() | instead
    return json.dumps({name: value for name, value in fields.items() if name != without}).encode()


#: By name: the record's value, and what the dead letter says of it.
UNREADABLE: dict[str, tuple[bytes | None, str]] = {
    "no value": (None, "no value"),
    "nothing": (b"", "it is not JSON: Expecting value"),
    "no UTF-8": (b"\xff\xfe\x00\x80", "it is not UTF-8"),
    "no JSON": (b"hello", "not a Dramatiq message"),
    "cut off": (encoded()[:-20], "not a Dramatiq message"),
    "null": (b"null", "it is null, not an object"),
    "a list": (b"[]", "it is an array, not an object"),
    "a text": (b'"work"', "not an object"),
    "a number": (b"17", "not an object"),
    "nested beyond any stack": (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
    "a number beyond measure": (
        encoded(args=[1]).replace(b"[1]", b"[" + b"9" * 5_000 + b"]"), "not a Dramatiq message",
    ),
    "large garbage": (b"x" * 900_000, "not a Dramatiq message"),
    **{
        f"no {name}": (encoded(without=name), f"{name} is missing")
        for name in WRONG_VALUES
        if name != "message_id"
    },
    "one field too many": (encoded(surprise=1), "it also has surprise"),
    "no options": (encoded(options=None), "options is null, not an object"),
    "a name beyond any float": (encoded(actor_name=10**400), "actor_name is a number, not a string"),
    **{
        f"{name} is {json.dumps(value)}": (encoded("", **{name: value}), name)
        for name, values in WRONG_VALUES.items()
        for value in values
    },
    "another queue's": (encoded(queue_name="other"), "'other'"),
    "a delay queue's": (encoded(queue_name="default.DQ"), "'default.DQ'"),
    "an unknown actor's": (encoded(actor_name="nobody"), "'nobody'"),
    "errors that no class can be": (
        encoded(options={"throws": "ValueError"}, kwargs={"fail": True}), "throws",
    ),
}  # fmt: skip


#: By name: options that Dramatiq or its middleware would stumble over, and how messages with them end when
#: their task succeeds and when it fails.
ODD_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an eta in the past": ({"eta": -1}, "done", "dead"),
    "an eta in the future": ({"eta": 99_999_999_999_999}, "done", "dead"),
    "no eta": ({"eta": None}, "done", "dead"),
    "an eta that is no number": ({"eta": "soon"}, "done", "dead"),
    "an infinite eta": ({"eta": float("inf")}, "done", "dead"),
    "retries that are no number": ({"retries": "many"}, "done", "dead"),
    "max_retries that are no number": ({"max_retries": "few"}, "done", "dead"),
    "a backoff that is no number": ({"max_retries": 3, "min_backoff": "x"}, "done", "dead"),
    "a negative backoff": ({"max_retries": 1, "min_backoff": -5, "max_backoff": -5}, "done", "dead"),
    "a time limit that is no number": ({"time_limit": "x"}, "done", "dead"),
    "an age limit that is no number": ({"max_age": "x"}, "done", "dead"),
    "a next step that is no message": ({"pipe_target": 5}, "dead", "dead"),
    "a next step that nobody knows": ({"pipe_target": {"queue_name": "default"}}, "dead", "dead"),
    "a next step in an impossible queue": (
        {"pipe_target": Message("no such name!", "work", (), {}, {}).asdict()}, "dead", "dead",
    ),
    "a next step with a negative delay": (
        {"pipe_target": Message(QUEUE, "work", (), {}, {"delay": -1}).asdict()}, "done", "dead",
    ),
    "an unknown callback": ({"on_success": "nobody", "on_failure": "nobody"}, "dead", "dead"),
    "a callback that is no name": ({"on_success": {"a": 1}, "on_failure": [1]}, "dead", "dead"),
    "a traceback that is no text": ({"traceback": 5, "max_retries": 1, "min_backoff": 1}, "done", "dead"),
    "no errors to be thrown": ({"throws": None}, "done", "dead"),
}  # fmt: skip

#: Times that Dramatiq's own brokers run a message with. They look at none.
ODD_TIMES: tuple[Any, ...] = (
    1.5, 1_700_000_000_123.25, 0, -1, -1e300, 1e300, 10**400, -(10**400),
    float("nan"), float("inf"), float("-inf"), None, "now", "2026-11-28T04:00:00Z", True, [], {},
)  # fmt: skip

#: By name: other fields that are valid and unusual.
ODD_FIELDS: dict[str, dict[str, Any]] = {
    **{f"the time {str(value)[:30]!r}": {"message_timestamp": value} for value in ODD_TIMES},
    "an id with half a character": {"message_id": "\ud800"},
    "an id of 200,000 characters": {"message_id": "x" * 200_000},
    "a time beyond the calendar": {"message_timestamp": 10**300},
    "a time before 1970": {"message_timestamp": -(10**18)},
    "arguments nested 400 deep": {"kwargs": {"deep": json.loads("[" * 400 + "]" * 400)}},
    "arguments of 900,000 characters": {"kwargs": {"long": "x" * 900_000}},
    "arguments that the task does not take": {"args": [1, 2, 3, 4], "kwargs": {"no such": 1}},
}


class DecodedQueue:
    """A queue with a worker, and what has become of the records that were put into its topic."""

    def __init__(self, broker: KafkaBroker, worker: Worker) -> None:
        self.broker = broker
        self.worker = worker
        self.origins: dict[str, Origin] = {}
        self.done: list[str] = []
        self.dead_letters: dict[Origin, list[DeadLetter]] = {}
        self._producer = broker.parts.clients.producer(max_request_size=2_000_000)

    def put(self, name: str, value: bytes | None) -> None:
        """All go to one partition: what could hold it up would hold up all that follows."""
        topic = self.broker.parts.topics.queue(QUEUE)
        sent = self._producer.send(topic, value=value, key=b"key", partition=0)
        sent.get(10)
        self.origins[name] = Origin(topic, 0, sent.value.offset)

    def join(self) -> None:
        """Wait until all of it is done or dead."""
        self.broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
        self.dead_letters.clear()
        for dead_letter in self.broker.dead_letters(QUEUE):
            assert dead_letter.origin is not None
            self.dead_letters.setdefault(dead_letter.origin, []).append(dead_letter)

    def close(self) -> None:
        self._producer.close()


@pytest.fixture(scope="module")
def queue(kafka_backend: KafkaBackend) -> Iterator[DecodedQueue]:
    broker = kafka_backend.broker()
    broker.declare_queue(QUEUE)
    broker.parts.topics.ensure(broker.parts.topics.of_worker(QUEUE))
    worker = Worker(broker, worker_timeout=WORKER_TIMEOUT_MS, worker_threads=WORKER_THREADS)
    queue = DecodedQueue(broker, worker)

    @dramatiq.actor(broker=broker, max_retries=0)
    def work(name: str = "", *, fail: bool = False, **_: object) -> None:
        if fail:
            raise ValueError("asked to")
        queue.done.append(name)

    worker.start()
    yield queue
    worker.stop()
    queue.close()
    broker.close()


@pytest.fixture(scope="module")
def after_unreadable(queue: DecodedQueue) -> DecodedQueue:
    """The queue after every unreadable record, each followed by a good one."""
    for name, (value, _) in UNREADABLE.items():
        queue.put(name, value)
        queue.put(f"after {name}", encoded(args=[f"after {name}"]))
    queue.join()
    return queue


def same_record(raw: bytes, value: bytes) -> bool:
    """Whether they are the same bytes or, a dead letter being JSON, the same object."""
    try:
        return raw == value or bool(json.loads(raw) == json.loads(value))
    except (ValueError, RecursionError):
        return False


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_record_that_is_no_message_of_the_queue_becomes_one_dead_letter_with_its_bytes(
    after_unreadable: DecodedQueue, name: str
) -> None:
    value, reason = UNREADABLE[name]
    (dead_letter,) = after_unreadable.dead_letters[after_unreadable.origins[name]]
    assert dead_letter.error_type == ("UnknownActor" if name == "an unknown actor's" else "InvalidMessage")
    assert reason in dead_letter.error
    assert same_record(dead_letter.raw, value or b"")


def test_the_messages_between_such_records_all_run_once(after_unreadable: DecodedQueue) -> None:
    assert sorted(after_unreadable.done) == sorted(f"after {name}" for name in UNREADABLE)


@pytest.fixture(scope="module")
def after_odd(queue: DecodedQueue) -> DecodedQueue:
    """The queue after messages that are valid and odd, each once with a task that fails."""
    odd = {name: {"options": options} for name, (options, *_) in ODD_OPTIONS.items()} | ODD_FIELDS
    for name, fields in odd.items():
        for fail in (False, True):
            changed = {
                "args": [name],
                **fields,
                "kwargs": {**fields.get("kwargs", {}), "fail": fail},
                "message_id": odd_id(name, fail=fail),
            }
            queue.put(f"{name}, {fail}", encoded(**changed))
    queue.join()
    return queue


def odd_id(name: str, *, fail: bool) -> str:
    return f"{name}, {fail}{ODD_FIELDS.get(name, {}).get('message_id', '')}"


def end_of(queue: DecodedQueue, name: str, *, fail: bool) -> str:
    """How a message ended, under whatever offset: a retry has another one."""
    sought = odd_id(name, fail=fail)
    dead_letters = [
        dead_letter
        for dead_letters in queue.dead_letters.values()
        for dead_letter in dead_letters
        if dead_letter.message is not None and dead_letter.message.message_id == sought
    ]
    assert len(dead_letters) <= 1
    return "dead" if dead_letters else "done"


@pytest.mark.parametrize("name", ODD_OPTIONS)
def test_a_message_with_odd_options_runs_and_what_cannot_follow_from_it_makes_it_a_dead_letter(
    after_odd: DecodedQueue, name: str
) -> None:
    _, when_it_succeeds, when_it_fails = ODD_OPTIONS[name]
    assert end_of(after_odd, name, fail=False) == when_it_succeeds
    assert end_of(after_odd, name, fail=True) == when_it_fails
    assert after_odd.done.count(name) == 1


@pytest.mark.parametrize("name", ODD_FIELDS)
def test_an_unusual_message_runs_and_fails_like_any_other(after_odd: DecodedQueue, name: str) -> None:
    impossible = "does not take" in name
    assert end_of(after_odd, name, fail=False) == ("dead" if impossible else "done")
    assert end_of(after_odd, name, fail=True) == "dead"
    assert after_odd.done.count(name) == (0 if impossible else 1)


def test_no_thread_dies_of_any_of_it_and_no_consumer_is_recreated(
    queue: DecodedQueue, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("after_unreadable")
    consumer = queue.worker.consumers[QUEUE].consumer
    for name, (value, _) in UNREADABLE.items():
        queue.put(f"{name}, again", value)
    queue.join()
    request.getfixturevalue("after_odd")
    assert all(thread.is_alive() for thread in queue.worker.workers)
    assert queue.worker.consumers[QUEUE].is_alive()
    assert queue.worker.consumers[QUEUE].consumer is consumer


#: By name: ids as other producers write them, and the one that the message then has; None for one of its own.
ODD_IDS: dict[str, tuple[dict[str, Any], str | None]] = {
    "a number": ({"message_id": 5}, "5"),
    "a fraction": ({"message_id": 5.25}, "5.25"),
    "null": ({"message_id": None}, None),
    "empty": ({"message_id": ""}, None),
    "none": ({}, None),
}


@pytest.fixture(scope="module")
def after_odd_ids(kafka_backend: KafkaBackend) -> Iterator[dict[str, list[Message[Any]]]]:
    """What was seen of messages without a usual id, each of which is tried twice and then given up."""
    broker = kafka_backend.broker(CurrentMessage())
    broker.declare_queue(QUEUE)
    broker.parts.topics.ensure(broker.parts.topics.of_worker(QUEUE))
    worker = Worker(broker, worker_timeout=WORKER_TIMEOUT_MS, worker_threads=WORKER_THREADS)
    queue = DecodedQueue(broker, worker)
    seen: dict[str, list[Message[Any]]] = {name: [] for name in ODD_IDS}

    @dramatiq.actor(broker=broker, max_retries=1, min_backoff=1, max_backoff=1)
    def work(name: str) -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        seen[name].append(message)
        raise ValueError("asked to")

    for name, (fields, _) in ODD_IDS.items():
        queue.put(name, encoded("" if fields else "message_id", **fields, args=[name]))
    worker.start()
    queue.join()
    for dead_letters in queue.dead_letters.values():
        for dead_letter in dead_letters:
            assert dead_letter.message is not None
            seen[dead_letter.message.args[0]].append(dead_letter.message)
    yield seen
    worker.stop()
    queue.close()
    broker.close()


@pytest.mark.parametrize("name", ODD_IDS)
def test_a_message_without_a_usual_id_runs_and_has_one_id_in_all_its_attempts_and_its_dead_letter(
    after_odd_ids: dict[str, list[Message[Any]]], name: str
) -> None:
    ids = [message.message_id for message in after_odd_ids[name]]
    assert len(ids) == 3
    assert set(ids) == {ODD_IDS[name][1] or ids[0]}
    others = {m.message_id for other, messages in after_odd_ids.items() if other != name for m in messages}
    assert ids[0]
    assert ids[0] not in others


def test_a_message_without_a_time_has_the_one_of_its_record() -> None:
    record = SimpleNamespace(topic="default", partition=0, offset=7, timestamp=1_700_000_000_123, headers=())
    for raw in (encoded(without="message_timestamp"), encoded(message_timestamp=None)):
        message = read_message(raw, queue_name=QUEUE, actors={"work"}, record=record)
        assert message.message_timestamp == 1_700_000_000_123


def test_a_message_without_an_id_has_the_same_one_whenever_it_is_read_and_back_from_its_lane() -> None:
    first = SimpleNamespace(topic="default", partition=1, offset=7, timestamp=1_700_000_000_123, headers=())
    back = SimpleNamespace(
        topic="default", partition=1, offset=95, timestamp=1_700_000_999_999,
        headers=[("lane-ticket", b"7:1700000000123:0")],
    )  # fmt: skip
    later = SimpleNamespace(topic="default", partition=1, offset=7, timestamp=1_800_000_000_000, headers=())
    raw = encoded(without="message_id")
    ids = [
        read_message(raw, queue_name=QUEUE, actors={"work"}, record=record).message_id
        for record in (first, first, back, later)
    ]
    assert ids[0] == ids[1] == ids[2] != ids[3], "a recreated topic has new offsets"
