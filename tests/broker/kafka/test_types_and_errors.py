"""The project's own types and errors beside kafka-python's."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import kafka.errors
import kafka.structs
import pytest
from kafka.consumer.fetcher import ConsumerRecord

from broker.kafka import errors
from broker.kafka.types import ConsumedRecord, OffsetAndMetadata, OffsetAndTimestamp, TopicPartition


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (TopicPartition("mail", 3), kafka.structs.TopicPartition("mail", 3)),
        (OffsetAndMetadata(7, "text", 2), kafka.structs.OffsetAndMetadata(7, "text", 2)),
        (OffsetAndTimestamp(7, 1_000, 2), kafka.structs.OffsetAndTimestamp(7, 1_000, 2)),
    ],
)
def test_a_named_tuple_of_ours_is_the_same_key_as_kafka_pythons(ours: Any, theirs: Any) -> None:
    assert ours == theirs
    assert {ours: "found"}[theirs] == {theirs: "found"}[ours] == "found"
    assert ours._fields == theirs._fields


def test_kafka_pythons_record_has_every_attribute_of_a_consumed_record() -> None:
    names = {name for name in vars(ConsumedRecord) if not name.startswith("_")}
    assert names >= {"topic", "offset", "value", "headers", "serialized_value_size"}
    assert names <= set(ConsumerRecord._fields)


def test_every_error_has_the_bases_that_the_type_checker_is_told_of() -> None:
    source = ast.parse(Path(errors.__file__).read_text())
    told = [node for node in ast.walk(source) if isinstance(node, ast.ClassDef)]
    assert len(told) > 30
    for node in told:
        real = getattr(errors, node.name)
        assert real is getattr(kafka.errors, node.name)
        assert {ast.unparse(base) for base in node.bases} <= {kind.__name__ for kind in real.__mro__}


def test_every_error_says_whether_it_is_worth_another_attempt() -> None:
    assert errors.KafkaTimeoutError().retriable
    assert not errors.MessageSizeTooLargeError().retriable
    assert errors.may_pass(errors.UnknownBrokerIdError())
    assert errors.may_pass(errors.KafkaTimeoutError())
    assert not errors.may_pass(errors.TopicAuthorizationFailedError())
    assert not errors.may_pass(TimeoutError())


def test_another_client_raises_the_error_of_a_code_with_a_text_of_its_own() -> None:
    error = errors.for_code(10)("its record has 2 MB")
    assert type(error) is errors.MessageSizeTooLargeError
    assert "2 MB" in str(error)
    assert issubclass(errors.for_code(9_999), errors.BrokerResponseError)


def test_an_error_about_a_timestamp_is_recognised_in_both_of_its_forms() -> None:
    assert errors.is_about_time(errors.InvalidTimestampError())
    assert errors.is_about_time(errors.InvalidRecordError("One or more records: timestamp out of range"))
    assert not errors.is_about_time(errors.InvalidRecordError("no key"))
