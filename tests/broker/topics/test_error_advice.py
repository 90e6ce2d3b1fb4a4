"""What an error of a send advises fits what is wrong."""

from __future__ import annotations

import pytest
from kafka import errors as kafka_errors

from broker import EnqueueFailed, KafkaUnavailable, TopicMisconfigured

REACHABLE = "check that Kafka is reachable"


def said(*failures: BaseException) -> str:
    return str(EnqueueFailed({f"message-{number}": failure for number, failure in enumerate(failures)}))


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        (kafka_errors.MessageSizeTooLargeError("..."), "max.message.bytes"),
        (kafka_errors.RecordListTooLargeError("..."), "max.message.bytes"),
        (kafka_errors.InvalidRecordError("..."), "cleanup.policy=delete"),
        (kafka_errors.CorruptRecordError("..."), "cleanup.policy=delete"),
        (kafka_errors.InvalidTimestampError("..."), "Set the clock of this machine right"),
        (kafka_errors.UnknownTopicOrPartitionError("..."), "The topic was deleted"),
        (kafka_errors.UnknownTopicIdError("..."), "The topic was deleted"),
        (kafka_errors.InvalidTopicError("..."), "no topic of that name"),
        (kafka_errors.TopicAuthorizationFailedError("..."), "right"),
        (kafka_errors.ClusterAuthorizationFailedError("..."), "right"),
        (kafka_errors.UnsupportedCompressionTypeError("..."), "compression_type"),
        (kafka_errors.UnsupportedForMessageFormatError("..."), "compression_type"),
        (kafka_errors.InvalidRequiredAcksError("..."), "acks=all"),
        (caused(KafkaUnavailable("..."), kafka_errors.PolicyViolationError("...")), "create.topic.policy"),
        (
            caused(KafkaUnavailable("..."), kafka_errors.InvalidReplicationFactorError("...")),
            "replication_factor=",
        ),
        (
            caused(kafka_errors.KafkaTimeoutError("..."), kafka_errors.NotEnoughReplicasError("...")),
            "min.insync.replicas",
        ),
        (
            caused(kafka_errors.KafkaTimeoutError("..."), kafka_errors.NotEnoughReplicasAfterAppendError()),
            "min.insync.replicas",
        ),
        (TopicMisconfigured("mail", "The topic 'mail' has ..."), "Correct the topic's settings"),
        (ValueError("..."), "The same message would fail again"),
    ],
    ids=lambda value: type(value.__cause__ or value).__name__ if isinstance(value, BaseException) else "",
)
def test_the_advice_is_about_what_is_wrong(failure: BaseException, advice: str) -> None:
    assert advice in said(failure)
    assert REACHABLE not in said(failure)


@pytest.mark.parametrize(
    "failure",
    [
        KafkaUnavailable("No Kafka server answered"),
        kafka_errors.KafkaTimeoutError("Expiring 1 record(s)"),
        caused(kafka_errors.KafkaTimeoutError("..."), kafka_errors.NotLeaderForPartitionError("...")),
        kafka_errors.KafkaConnectionError("..."),
    ],
)
def test_what_may_pass_is_worth_another_attempt(failure: BaseException) -> None:
    assert "Enqueue again, or check that Kafka is reachable" in said(failure)


def test_failures_of_several_kinds_each_have_their_advice() -> None:
    text = said(
        kafka_errors.MessageSizeTooLargeError("its record has 2,000,100 bytes"),
        KafkaUnavailable("No Kafka server answered"),
        KafkaUnavailable("No Kafka server answered"),
    )
    assert "did not acknowledge 3 message(s)" in text
    assert text.index("max.message.bytes") < text.index(f"For 2 of the others: Enqueue again, or {REACHABLE}")
