"""Batches that cannot be read: their codec is not installed, or they are damaged."""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
import pytest
from kafka import codec
from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.record.default_records import DefaultRecordBatch

from broker import KafkaBroker, KafkaUnavailable
from broker.kafka import unreadable_batches as unreadable
from broker.kafka.unreadable_batches import explained
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.kafka_python import whole_admin
from tests.waiting import wait_until

#: Any Python reads gzip, so a test can take it away and give it back.
HIDDEN = {"compression.type": "gzip"}


@pytest.fixture
def two_queues(make_broker: MakeBroker) -> tuple[KafkaBroker, list[str]]:
    """A broker with a queue whose topic is compressed, and one whose topic is not."""
    broker, ran = make_broker(partitions=1), list[str]()

    @dramatiq.actor(broker=broker, queue_name="squeezed")
    def squeezed(word: str) -> None:
        ran.append(word)

    @dramatiq.actor(broker=broker, queue_name="plain")
    def plain(word: str) -> None:
        ran.append(word)

    return broker, ran


def create(broker: KafkaBroker, topic: str, **configs: str) -> None:
    with whole_admin(broker.parts.clients) as admin:
        spec = {"num_partitions": 1, "replication_factor": 1, "configs": {**HIDDEN, **configs}}
        admin.create_topics({topic: spec}, wait_for_metadata=True)


@pytest.mark.real_kafka("it does not compress what it stores")
def test_a_batch_in_a_codec_that_is_not_installed_waits_and_stops_nothing_else(
    two_queues: tuple[KafkaBroker, list[str]],
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, ran = two_queues
    monkeypatch.setattr(unreadable, "RETRY_GAP_S", 0.2)
    monkeypatch.setattr(codec, "has_gzip", lambda: False)
    create(broker, broker.parts.topics.queue("squeezed"))
    send(broker, "squeezed", "first")
    start_worker(broker)

    wait_until(
        lambda: "squeezed-0 cannot be read from offset 0 on" in caplog.text, deadline_s=60, what="a word"
    )
    send(broker, "plain", "others")
    wait_until(lambda: ran == ["others"], deadline_s=60, what="the other queue's message")
    assert broker.count("squeezed") == 1
    (consumer,) = [c for c in broker.parts.consumers if c._queue_name == "squeezed"]
    monkeypatch.setattr(codec, "has_gzip", lambda: True)
    send(broker, "squeezed", "second")

    wait_until(lambda: ran == ["others", "first", "second"], deadline_s=60, what="both messages")
    # Once, by the consumer that there was from the beginning.
    assert caplog.text.count("squeezed-0 cannot be read") == 1
    assert consumer in broker.parts.consumers
    assert not [
        r for r in caplog.records if r.name.startswith("dramatiq.worker") and r.levelno > logging.INFO
    ]


@pytest.mark.real_kafka("it does not compress what it stores")
def test_records_before_an_unreadable_batch_do_not_make_it_readable(
    two_queues: tuple[KafkaBroker, list[str]],
    make_broker: MakeBroker,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="broker")
    broker, ran = two_queues
    squeezing = make_broker(
        namespace=broker.parts.topics.queue(""), partitions=1, client_options={"compression_type": "gzip"}
    )
    send(broker, "plain", "before")
    squeezing.enqueue(broker.get_actor("plain").message("squeezed"))
    monkeypatch.setattr(unreadable, "RETRY_GAP_S", 0.2)
    tries = [0]

    def has_gzip() -> bool:
        tries[0] += 1
        return False

    monkeypatch.setattr(codec, "has_gzip", has_gzip)
    start_worker(broker)
    wait_until(lambda: ran == ["before"] and tries[0] >= 5, deadline_s=60, what="further tries")
    assert "can be read again" not in caplog.text
    monkeypatch.setattr(codec, "has_gzip", lambda: True)
    wait_until(lambda: ran == ["before", "squeezed"], deadline_s=60, what="the squeezed message")
    assert caplog.text.count("plain-0 cannot be read from offset 1 on") == 1
    assert caplog.text.count("plain-0 can be read again") == 1


@pytest.mark.real_kafka("it does not compress what it stores")
def test_delays_in_a_codec_that_is_not_installed_stop_no_other_partition(
    make_broker: MakeBroker,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, ran = make_broker(partitions=1), list[str]()

    @dramatiq.actor(broker=broker, queue_name="plain")
    def plain(word: str) -> None:
        ran.append(word)

    monkeypatch.setattr(unreadable, "RETRY_GAP_S", 0.2)
    monkeypatch.setattr(codec, "has_gzip", lambda: False)
    create(broker, broker.parts.topics.delayed, **{"cleanup.policy": "compact"})
    plain.send_with_options(args=("later",), delay=10)
    start_worker(broker)

    wait_until(
        lambda: "delayed-0 cannot be read from offset 0 on" in caplog.text, deadline_s=60, what="a word"
    )
    plain.send("now")
    wait_until(lambda: ran == ["now"], deadline_s=60, what="the message that was not delayed")
    with pytest.raises(KafkaUnavailable, match="gzip"):
        broker.delayed("plain")
    monkeypatch.setattr(codec, "has_gzip", lambda: True)

    wait_until(lambda: ran == ["now", "later"], deadline_s=60, what="the delayed message")
    assert caplog.text.count("delayed-0 cannot be read") == 1


def test_a_batch_that_arrives_damaged_is_read_again(
    two_queues: tuple[KafkaBroker, list[str]],
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, ran = two_queues
    monkeypatch.setattr(unreadable, "RETRY_GAP_S", 0.2)
    right, damaged = DefaultRecordBatch.validate_crc, [3]

    def validate(batch: DefaultRecordBatch) -> Any:
        topic_is_ours = b"squeezed" in bytes(batch._buffer)
        if topic_is_ours and damaged[0]:
            damaged[0] -= 1
            return False
        return right(batch)

    monkeypatch.setattr(DefaultRecordBatch, "validate_crc", validate)
    send(broker, "squeezed", "first")
    start_worker(broker)

    wait_until(lambda: ran == ["first"], deadline_s=60, what="the message")
    assert damaged == [0]
    assert "CorruptRecordError" in caplog.text


@pytest.mark.parametrize(
    ("name", "package"), [("zstd", "zstandard"), ("snappy", "python-snappy"), ("lz4", "lz4")]
)
def test_the_error_names_the_package_that_is_missing(name: str, package: str) -> None:
    error = UnsupportedCodecError(f"Libraries for {name} compression codec not found")

    assert f"compressed with {name}, which cannot be read here: install {package} " in explained(error)
    assert "CorruptRecordError" in explained(CorruptRecordError())


def send(broker: KafkaBroker, actor_name: str, word: str) -> None:
    broker.get_actor(actor_name).send(word)
