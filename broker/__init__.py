"""A Dramatiq broker backed by Kafka topics."""

from .broker import KafkaBroker
from .dead_letters import DeadLetter, DeadLetters, default_middleware
from .delays import CancelUndecided, DelayedMessage, Outcome, Pending
from .errors import (
    EnqueueFailed,
    InvalidMessage,
    InvalidQueueName,
    KafkaUnavailable,
    MessageFailed,
    MessageOfUnknownActor,
    NoCurrentTask,
    NotAuthorized,
    NotNow,
    PartitionKeyRefused,
    PermanentError,
    PoisonMessage,
    RetryPolicyRefused,
    TemporaryError,
    TopicMisconfigured,
    UnknownActor,
)
from .partition_keys import PartitionKeys
from .reports.current_task import current_task
from .retries import TenacityRetries, retry_if_temporary

__all__ = [
    "CancelUndecided",
    "DeadLetter",
    "DeadLetters",
    "DelayedMessage",
    "EnqueueFailed",
    "InvalidMessage",
    "InvalidQueueName",
    "KafkaBroker",
    "KafkaUnavailable",
    "MessageFailed",
    "MessageOfUnknownActor",
    "NoCurrentTask",
    "NotAuthorized",
    "NotNow",
    "Outcome",
    "PartitionKeyRefused",
    "PartitionKeys",
    "Pending",
    "PermanentError",
    "PoisonMessage",
    "RetryPolicyRefused",
    "TemporaryError",
    "TenacityRetries",
    "TopicMisconfigured",
    "UnknownActor",
    "current_task",
    "default_middleware",
    "retry_if_temporary",
]
