"""Dead letters of messages in an application's own encoding say and keep the same as those in JSON."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, Worker
from dramatiq.encoder import Encoder, JSONEncoder, MessageData, PickleEncoder

from broker import KafkaBroker
from broker.dead_letters import DeadLetter, dead_letter_record
from broker.dead_letters.dead_letter import read_dead_letter
from broker.dead_letters.topic_log import DeadLetterTopic
from broker.deliveries.delivery import Origin
from broker.produce.record import Record
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.dead_letters.samples import QUEUE
from tests.waiting import wait_until

DEADLINE_S = 90.0
JOIN_TIMEOUT_MS = int(DEADLINE_S * 1000)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Compressed(Encoder):
    """Bytes that are no text."""

    def encode(self, data: MessageData) -> bytes:
        return zlib.compress(pickle.dumps(data))

    def decode(self, data: bytes) -> MessageData:
        fields: MessageData = pickle.loads(zlib.decompress(data))
        return fields


class JSONWithTimes(Encoder):
    """JSON, with one more type than JSON has."""

    def encode(self, data: MessageData) -> bytes:
        return json.dumps(data, default=lambda time: {"time": time.isoformat()}).encode()

    def decode(self, data: bytes) -> MessageData:
        fields: MessageData = json.loads(data, object_hook=self._read)
        return fields

    def _read(self, fields: dict[str, Any]) -> Any:
        return datetime.fromisoformat(fields["time"]) if fields.keys() == {"time"} else fields


class ExactJSON(JSONWithTimes):
    """JSON that counts every byte: a signature would."""

    def encode(self, data: MessageData) -> bytes:
        body = super().encode(data)
        return b" " * (len(body) % 7) + body

    def decode(self, data: bytes) -> MessageData:
        body = data.lstrip(b" ")
        if len(data) - len(body) != len(body) % 7:
            raise ValueError("it was changed on its way")
        return super().decode(body)


ENCODERS: list[tuple[type[Encoder], Any]] = [
    (JSONEncoder, "noon"),
    (PickleEncoder, NOON),
    (Compressed, NOON),
    (JSONWithTimes, NOON),
    (ExactJSON, NOON),
]
each_encoder = pytest.mark.parametrize(
    ("encoder", "argument"), ENCODERS, indirect=["encoder"], ids=[kind.__name__ for kind, _ in ENCODERS]
)


@pytest.fixture
def encoder(request: pytest.FixtureRequest) -> Iterator[Encoder]:
    """The encoder of this process, until the test has ended."""
    before = dramatiq.get_encoder()
    encoder: Encoder = request.param()
    dramatiq.set_encoder(encoder)
    yield encoder
    dramatiq.set_encoder(before)


@pytest.fixture
def read(offline_broker: KafkaBroker) -> Callable[..., tuple[Record, DeadLetter]]:
    """Makes a dead letter's record and reads it."""

    def read(raw: bytes, message: Message[Any] | None = None) -> tuple[Record, DeadLetter]:
        record = dead_letter_record(
            offline_broker.parts.topics,
            queue_name=QUEUE,
            origin=Origin("mail", 3, 42),
            raw=raw,
            error=ValueError("bad"),
            message=message,
        )
        return record, read_dead_letter(QUEUE, record.value, record.headers)

    return read


@pytest.fixture(scope="module")
def offline_broker() -> KafkaBroker:
    return KafkaBroker()


def message(argument: Any, **options: Any) -> Message[Any]:
    return Message(QUEUE, "task", (argument,), {"by": argument}, options)


@each_encoder
@pytest.mark.parametrize("is_run", [True, False], ids=["run", "not run"])
def test_it_comes_back_equal_with_its_id_and_its_count(
    encoder: Encoder, argument: Any, is_run: bool, read: Callable[..., tuple[Record, DeadLetter]]
) -> None:
    arrived = message(argument, retries=2)
    at_its_end = arrived.copy(options={"retries": 3}) if is_run else None
    record, dead_letter = read(encoder.encode(arrived.asdict()), at_its_end)
    assert dead_letter.message == (at_its_end or arrived)
    assert dead_letter.why_not_redrivable is None
    assert dead_letter.retry_count == 2
    assert record.key == arrived.message_id.encode()


@each_encoder
def test_bytes_that_the_encoder_cannot_read_are_kept_as_they_are(
    encoder: Encoder, argument: Any, read: Callable[..., tuple[Record, DeadLetter]]
) -> None:
    raw = b"\x80\xff" + bytes(range(256))
    record, dead_letter = read(raw)
    assert (dead_letter.message, dead_letter.raw, dead_letter.retry_count) == (None, raw, 0)
    assert record.key == b"mail/3/42"


@each_encoder
def test_an_option_that_cannot_be_encoded_costs_only_the_options(
    encoder: Encoder, argument: Any, read: Callable[..., tuple[Record, DeadLetter]]
) -> None:
    sent = message(argument, retries=1)

    class Unknown:
        isoformat = None

    _, dead_letter = read(encoder.encode(sent.asdict()), sent.copy(options={"policy": Unknown()}))
    assert dead_letter.message == sent
    assert dead_letter.retry_count == 1


def test_a_dead_letter_of_the_version_before_is_read_as_before() -> None:
    sent = message("noon", retries=2)
    raw = pickle.dumps(sent.asdict())
    entry = {"error": "", "error_type": "", "traceback": "", "retry_count": 0, "timestamp": 1}
    in_json = json.dumps({"original_message": sent.asdict(), **entry}).encode()
    assert read_dead_letter(QUEUE, in_json, []).message == sent
    in_base64 = json.dumps({"original_message": base64.b64encode(raw).decode(), **entry}).encode()
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(PickleEncoder())
    try:
        assert read_dead_letter(QUEUE, in_base64, []).message == sent
    finally:
        dramatiq.set_encoder(before)


@pytest.mark.parametrize("encoder", [PickleEncoder, Compressed, ExactJSON], indirect=True)
def test_a_message_is_retried_given_up_and_redriven_in_its_encoding(
    encoder: Encoder, make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker(partitions=1)
    seen: list[datetime] = []
    is_healthy = False

    @dramatiq.actor(broker=broker, max_retries=2, min_backoff=1)
    def task(when: datetime) -> None:
        seen.append(when)
        if not is_healthy:
            raise RuntimeError("asked to")

    sent, garbage = task.send(NOON), b"\xff no message"
    topic = broker.parts.topics.queue(QUEUE)
    assert broker.parts.publisher.publish([Record(topic, garbage)]) == {}
    worker: Worker = start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)

    [dead_letter] = broker.dead_letters(QUEUE, message_id=sent.message_id)
    assert (dead_letter.retry_count, dead_letter.error_type) == (2, "RuntimeError")
    assert [each.raw for each in broker.dead_letters(QUEUE, error_type="InvalidMessage")] == [garbage]
    with DeadLetterTopic(broker.parts.clients, broker.parts.topics.dead_letters(QUEUE)) as log:
        keys = {record.key for record in log.records_since({})}
    assert keys == {sent.message_id.encode(), f"{topic}/0/1".encode()}

    is_healthy = True
    resolved = broker.redrive(QUEUE, message_id=sent.message_id, dry_run=False, reason="repaired")
    assert resolved.sent == 1
    wait_until(lambda: len(seen) == 4, deadline_s=DEADLINE_S, what="the redriven message to run")
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert seen == [NOON] * 4
    worker.stop()
