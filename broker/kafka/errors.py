"""The errors that a Kafka client raises, and predicates about them.

They are kafka-python's classes, which no other file imports from kafka-python. Another client raises the
same classes: ``for_code(code)(text)`` for an error code of Kafka, and the others by name. The type checker
sees the part of each class that the broker relies on. This module imports no other module of the broker,
since ``broker.errors`` uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .types import OffsetAndMetadata, TopicPartition

    class KafkaError(Exception):
        """An error of a Kafka client.

        Attributes:
          retriable: Whether the same request may succeed later, or at another node.
        """

        retriable: bool

    class BrokerResponseError(KafkaError):
        """Kafka answered with an error code."""

        errno: int

    class RetriableError(KafkaError): ...

    class InvalidMetadataError(RetriableError): ...

    class AuthorizationError(BrokerResponseError): ...

    class BrokerNotAvailableError(BrokerResponseError): ...

    class ClusterAuthorizationFailedError(AuthorizationError): ...

    class CorruptRecordError(BrokerResponseError): ...

    class FencedInstanceIdError(BrokerResponseError): ...

    class GroupAuthorizationFailedError(AuthorizationError): ...

    class IllegalGenerationError(BrokerResponseError): ...

    class IllegalStateError(KafkaError): ...

    class UnsupportedVersionError(BrokerResponseError): ...

    class IncompatibleBrokerVersion(UnsupportedVersionError): ...

    class IllegalSaslStateError(BrokerResponseError): ...

    class KafkaConnectionError(InvalidMetadataError): ...

    class SaslAuthenticationFailedError(BrokerResponseError): ...

    class UnsupportedSaslMechanismError(BrokerResponseError): ...

    class InvalidConfigurationError(BrokerResponseError): ...

    class InvalidPartitionsError(BrokerResponseError): ...

    class InvalidRecordError(BrokerResponseError): ...

    class InvalidReplicationFactorError(BrokerResponseError): ...

    class InvalidRequiredAcksError(BrokerResponseError): ...

    class InvalidTimestampError(BrokerResponseError): ...

    class InvalidTopicError(BrokerResponseError): ...

    class KafkaTimeoutError(RetriableError): ...

    class LogTruncationError(KafkaError):
        """Logs were truncated below the position of a consumer.

        Attributes:
          divergent_offsets: The cut of each log; None when its leader does not know it.
        """

        divergent_offsets: Mapping[TopicPartition, OffsetAndMetadata | None]

    class MemberIdRequiredError(BrokerResponseError): ...

    class MessageSizeTooLargeError(BrokerResponseError): ...

    class NotControllerError(RetriableError, BrokerResponseError): ...

    class NotEnoughReplicasAfterAppendError(RetriableError, BrokerResponseError): ...

    class NotEnoughReplicasError(RetriableError, BrokerResponseError): ...

    class OffsetOutOfRangeError(BrokerResponseError):
        """Positions are outside their logs; the first argument maps each partition to its position."""

    class PolicyViolationError(BrokerResponseError): ...

    class RebalanceInProgressError(BrokerResponseError): ...

    class RecordListTooLargeError(BrokerResponseError): ...

    class TopicAlreadyExistsError(BrokerResponseError): ...

    class TopicAuthorizationFailedError(AuthorizationError): ...

    class UnknownBrokerIdError(KafkaError): ...

    class UnknownMemberIdError(BrokerResponseError): ...

    class UnknownTopicIdError(InvalidMetadataError, BrokerResponseError): ...

    class UnknownTopicOrPartitionError(InvalidMetadataError, BrokerResponseError): ...

    class UnsupportedCodecError(KafkaError): ...

    class UnsupportedCompressionTypeError(BrokerResponseError): ...

    class UnsupportedForMessageFormatError(BrokerResponseError): ...

    def for_code(error_code: int) -> type[BrokerResponseError]:
        """The class of Kafka's error code; a class of its own for an unknown code."""

else:
    from kafka.errors import (
        AuthorizationError,
        BrokerNotAvailableError,
        BrokerResponseError,
        ClusterAuthorizationFailedError,
        CorruptRecordError,
        FencedInstanceIdError,
        GroupAuthorizationFailedError,
        IllegalGenerationError,
        IllegalSaslStateError,
        IllegalStateError,
        IncompatibleBrokerVersion,
        InvalidConfigurationError,
        InvalidMetadataError,
        InvalidPartitionsError,
        InvalidRecordError,
        InvalidReplicationFactorError,
        InvalidRequiredAcksError,
        InvalidTimestampError,
        InvalidTopicError,
        KafkaConnectionError,
        KafkaError,
        KafkaTimeoutError,
        LogTruncationError,
        MemberIdRequiredError,
        MessageSizeTooLargeError,
        NotControllerError,
        NotEnoughReplicasAfterAppendError,
        NotEnoughReplicasError,
        OffsetOutOfRangeError,
        PolicyViolationError,
        RebalanceInProgressError,
        RecordListTooLargeError,
        RetriableError,
        SaslAuthenticationFailedError,
        TopicAlreadyExistsError,
        TopicAuthorizationFailedError,
        UnknownBrokerIdError,
        UnknownMemberIdError,
        UnknownTopicIdError,
        UnknownTopicOrPartitionError,
        UnsupportedCodecError,
        UnsupportedCompressionTypeError,
        UnsupportedForMessageFormatError,
        UnsupportedSaslMechanismError,
        UnsupportedVersionError,
        for_code,
    )

__all__ = [
    "AuthorizationError",
    "BrokerNotAvailableError",
    "BrokerResponseError",
    "ClusterAuthorizationFailedError",
    "CorruptRecordError",
    "FencedInstanceIdError",
    "GroupAuthorizationFailedError",
    "IllegalGenerationError",
    "IllegalSaslStateError",
    "IllegalStateError",
    "IncompatibleBrokerVersion",
    "InvalidConfigurationError",
    "InvalidMetadataError",
    "InvalidPartitionsError",
    "InvalidRecordError",
    "InvalidReplicationFactorError",
    "InvalidRequiredAcksError",
    "InvalidTimestampError",
    "InvalidTopicError",
    "KafkaConnectionError",
    "KafkaError",
    "KafkaTimeoutError",
    "LogTruncationError",
    "MemberIdRequiredError",
    "MessageSizeTooLargeError",
    "NotControllerError",
    "NotEnoughReplicasAfterAppendError",
    "NotEnoughReplicasError",
    "OffsetOutOfRangeError",
    "PolicyViolationError",
    "RebalanceInProgressError",
    "RecordListTooLargeError",
    "RetriableError",
    "SaslAuthenticationFailedError",
    "TopicAlreadyExistsError",
    "TopicAuthorizationFailedError",
    "UnknownBrokerIdError",
    "UnknownMemberIdError",
    "UnknownTopicIdError",
    "UnknownTopicOrPartitionError",
    "UnsupportedCodecError",
    "UnsupportedCompressionTypeError",
    "UnsupportedForMessageFormatError",
    "UnsupportedSaslMechanismError",
    "UnsupportedVersionError",
    "for_code",
    "is_about_time",
    "is_unknown_partition",
    "may_pass",
]


def may_pass(error: BaseException) -> bool:
    """Whether another node may have the answer, or the same node later."""
    return isinstance(error, KafkaError) and (
        error.retriable or isinstance(error, UnknownBrokerIdError | BrokerNotAvailableError)
    )


def is_about_time(error: BaseException) -> bool:
    """Whether a record is refused because of its timestamp."""
    # kafka-python 3.0.12 raises the general error when two records or more of a batch are refused
    # (Sender._record_exceptions_fn in producer/sender.py).
    if isinstance(error, InvalidRecordError):
        return "timestamp" in str(error).lower()
    return isinstance(error, InvalidTimestampError)


def is_unknown_partition(error: BaseException) -> bool:
    """Whether a producer does not know the partition that a record names."""
    # A ValueError without a type of its own (KafkaProducer._partition in producer/kafka.py of kafka-python
    # 3.0.12).
    return isinstance(error, ValueError) and str(error).startswith("Unrecognized partition")
