"""Advice for a caller whose message Kafka did not acknowledge, for each kind of failure."""

from __future__ import annotations

from .kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidRecordError,
    InvalidReplicationFactorError,
    InvalidRequiredAcksError,
    InvalidTimestampError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnknownTopicIdError,
    UnknownTopicOrPartitionError,
    UnsupportedCodecError,
    UnsupportedCompressionTypeError,
    UnsupportedForMessageFormatError,
)

#: For failures that may pass.
TRY_AGAIN = "Enqueue again, or check that Kafka is reachable"
#: For failures that repeat.
WILL_FAIL_AGAIN = "The same message would fail again"

_NOT_CREATED = "change partitions= or replication_factor= of the broker, or create the topic yourself"
_ADVICE: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (
        (MessageSizeTooLargeError, RecordListTooLargeError),
        f"{WILL_FAIL_AGAIN}: send less data (a reference to stored data, for example), or raise the topic's "
        "max.message.bytes",
    ),
    ((InvalidTopicError,), f"{WILL_FAIL_AGAIN}: Kafka allows no topic of that name"),
    ((AuthorizationError,), f"{WILL_FAIL_AGAIN} until the client is given that right"),
    (
        (InvalidRecordError, CorruptRecordError),
        f"{WILL_FAIL_AGAIN} until the topic's settings are corrected: a queue's topic needs "
        "cleanup.policy=delete, and no rules of its own for records",
    ),
    (
        (InvalidTimestampError,),
        "Set the clock of this machine right, or raise the topic's message.timestamp.after.max.ms and "
        "message.timestamp.before.max.ms, then enqueue again",
    ),
    (
        (UnknownTopicOrPartitionError, UnknownTopicIdError),
        "The topic was deleted, was recreated with fewer partitions, or is invisible to this client (which "
        "needs the right DESCRIBE). Enqueue again: a deleted topic is created again",
    ),
    (
        (NotEnoughReplicasError, NotEnoughReplicasAfterAppendError),
        "Fewer replicas of the topic are in sync than its min.insync.replicas: start the missing Kafka "
        "nodes, then enqueue again",
    ),
    (
        (PolicyViolationError,),
        f"A rule of the cluster (create.topic.policy.class.name) refuses the topic: {_NOT_CREATED}",
    ),
    (
        (InvalidReplicationFactorError, InvalidPartitionsError, InvalidConfigurationError),
        f"The cluster cannot hold such a topic: {_NOT_CREATED}",
    ),
    (
        (UnsupportedCompressionTypeError, UnsupportedCodecError, UnsupportedForMessageFormatError),
        f"{WILL_FAIL_AGAIN} until client_options names another compression_type, or none",
    ),
    (
        (InvalidRequiredAcksError,),
        f"{WILL_FAIL_AGAIN}: the cluster does not offer acks=all, which this broker needs",
    ),
    ((TypeError, ValueError), WILL_FAIL_AGAIN),
)


def advice(failure: BaseException) -> str:
    """The advice about one failure, without a full stop.

    An attribute ``advice`` of an error comes first. The cause of a general failure, such as a timeout, gives
    more specific advice.
    """
    reason: BaseException | None = failure
    while reason is not None:
        if own := getattr(reason, "advice", None):
            return str(own)
        for kinds, text in _ADVICE:
            if isinstance(reason, kinds):
                return text
        reason = reason.__cause__
    return TRY_AGAIN
