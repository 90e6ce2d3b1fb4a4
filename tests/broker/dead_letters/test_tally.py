"""Counting dead letters again and again."""

from __future__ import annotations

from collections.abc import Iterator

import dramatiq
import pytest

from broker import KafkaBroker
from broker.dead_letters.record_format import as_json
from broker.dead_letters.tally import MAX_ERROR_TYPES, OTHERS, error_type_of
from broker.kafka.types import TopicPartition
from broker.testing import Kit, drain

TOPIC = "shop-mail_dlq"


@pytest.fixture
def kit() -> Iterator[Kit]:
    with Kit(KafkaBroker(namespace="shop-", partitions=2)).use() as kit:

        @dramatiq.actor(broker=kit.broker, queue_name="mail", max_retries=0)
        def task(name: str) -> None:
            raise type(name, (Exception,), {})("error_type")

        yield kit


def fail(kit: Kit, *error_types: str) -> None:
    for name in error_types:
        kit.broker.actors["task"].send(name)
    drain(raise_errors=False)


def counts(kit: Kit) -> dict[str, int]:
    (state,) = kit.broker.queues("mail")
    assert state.dead == sum(state.dead_by_error.values()) == len(list(kit.broker.dead_letters("mail")))
    return dict(state.dead_by_error)


def test_a_count_follows_new_redriven_and_discarded_dead_letters(kit: Kit) -> None:
    assert counts(kit) == {}
    fail(kit, "Away", "Away", "Full")
    assert counts(kit) == {"Away": 2, "Full": 1}
    kit.broker.discard("mail", error_type="Full", dry_run=False, reason="a test")
    fail(kit, "Slow")
    assert counts(kit) == {"Away": 2, "Slow": 1}
    (first, _) = kit.broker.dead_letters("mail", error_type="Away")
    assert first.message is not None
    kit.broker.redrive("mail", message_id=first.message.message_id, dry_run=False, reason="a test")
    assert counts(kit) == {"Away": 1, "Slow": 1}
    drain(raise_errors=False)
    assert counts(kit) == {"Away": 2, "Slow": 1}


def test_a_later_count_reads_only_the_records_since(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    from broker.dead_letters.topic_log import DeadLetterTopic

    starts: list[int] = []
    records = DeadLetterTopic.records

    def noted(self: DeadLetterTopic, partition: int, start: int = 0) -> object:
        starts.append(self.ends[partition] - start)
        return records(self, partition, start)

    fail(kit, *["Away"] * 20)
    count = kit.broker.parts.dead_letter_queue.count
    assert count("mail") == 20
    monkeypatch.setattr(DeadLetterTopic, "records", noted)
    assert count("mail") == 20
    assert starts == [0, 0]
    fail(kit, "Away")
    starts.clear()
    assert count("mail") == 21
    assert sum(starts) == 1


def test_dead_letters_that_kafka_has_deleted_are_counted_no_longer(kit: Kit) -> None:
    fail(kit, *["Away"] * 10, *["Full"] * 10)
    assert sum(counts(kit).values()) == 20
    for partition in (0, 1):
        log = kit.cluster.topics[TOPIC].logs[partition]
        with kit.broker.parts.clients.admin() as admin:
            admin.delete_records({TopicPartition(TOPIC, partition): len(log.records) // 2})
    left = sum(counts(kit).values())
    assert 0 < left < 20


def test_a_topic_that_was_recreated_is_counted_from_its_beginning(kit: Kit) -> None:
    fail(kit, *["Away"] * 5)
    assert counts(kit) == {"Away": 5}
    kit.cluster.delete_topic(TOPIC)
    kit.cluster.create_topic(TOPIC, partitions=2)
    fail(kit, *["Full"] * 8)
    assert counts(kit) == {"Full": 8}


def test_error_types_beyond_a_limit_share_an_entry(kit: Kit) -> None:
    fail(kit, *(f"Error{number}" for number in range(MAX_ERROR_TYPES + 3)))
    found = counts(kit)
    assert len(found) == MAX_ERROR_TYPES + 1
    assert found[OTHERS] == 3


@pytest.mark.parametrize("error", ['","error_type":"Other","', "error_type", "\\", '"', "\udcff"])
@pytest.mark.parametrize("error_type", ["Away", "Ошибка", 'a"b', "a\\", "two\nlines", ""])
def test_an_error_type_is_found_whatever_the_texts_contain(error: str, error_type: str) -> None:
    original = {"kwargs": {"error_type": "Inner", "x": error}}
    entry = {"original_message": original, "error": error, "error_type": error_type, "traceback": error}
    assert error_type_of(as_json(entry)) == error_type


@pytest.mark.parametrize(
    "value", [b"not ours", b'"error_type":"', b'"error_type":"\\q"', b'"error_type":"\xff"']
)
def test_a_record_of_somebody_else_has_no_error_type(value: bytes) -> None:
    assert error_type_of(value) == ""
