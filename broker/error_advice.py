"""What a caller whose message Kafka did not take can do about it, for each kind of failure."""

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

#: For what a later attempt may mend.
TRY_AGAIN = "Enqueue again, or check that Kafka is reachable"
#: For what is wrong with the message itself.
HOPELESS = "The same again would fail again"

_NOT_CREATED = "change partitions= or replication_factor= of the broker, or create the topic yourself"
_ADVICE: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    (
        (MessageSizeTooLargeError, RecordListTooLargeError),
        f"{HOPELESS}: send less (the key of something stored elsewhere, say), or raise the topic's "
        "max.message.bytes",
    ),
    ((InvalidTopicError,), f"{HOPELESS}: Kafka allows no topic of that name"),
    ((AuthorizationError,), f"{HOPELESS} until the client is given that right"),
    (
        (InvalidRecordError, CorruptRecordError),
        f"{HOPELESS} until the topic's settings are mended: a queue's topic has cleanup.policy=delete, and "
        "no rules of its own for records",
    ),
    (
        (InvalidTimestampError,),
        "Set the clock of this machine right, or raise the topic's message.timestamp.after.max.ms and "
        "message.timestamp.before.max.ms, then enqueue again",
    ),
    (
        (UnknownTopicOrPartitionError, UnknownTopicIdError),
        "The topic is gone, was created anew with fewer partitions, or may not be seen by this client (it "
        "takes the right DESCRIBE). Enqueue again: a topic that is gone is created",
    ),
    (
        (NotEnoughReplicasError, NotEnoughReplicasAfterAppendError),
        "Fewer replicas of the topic are in sync than its min.insync.replicas: start the missing Kafka "
        "nodes, then enqueue again",
    ),
    (
        (PolicyViolationError,),
        f"A rule of the cluster (create.topic.policy.class.name) refuses it: {_NOT_CREATED}",
    ),
    (
        (InvalidReplicationFactorError, InvalidPartitionsError, InvalidConfigurationError),
        f"The cluster cannot hold such a topic: {_NOT_CREATED}",
    ),
    (
        (UnsupportedCompressionTypeError, UnsupportedCodecError, UnsupportedForMessageFormatError),
        f"{HOPELESS} until client_options names another compression_type, or none",
    ),
    (
        (InvalidRequiredAcksError,),
        f"{HOPELESS}: the cluster does not offer acks=all, which this broker needs",
    ),
    ((TypeError, ValueError), HOPELESS),
)


def advice(failure: BaseException) -> str:
    """What to do about one failure, without a full stop.

    A failure that says only that time was up, or that something could not be done, has its reason for a
    cause. One with an attribute ``advice`` knows best.
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
