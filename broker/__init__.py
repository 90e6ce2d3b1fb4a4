"""A Dramatiq broker backed by Kafka topics."""

from .broker import KafkaBroker
from .dead_letters import DeadLetter, DeadLetters, default_middleware
from .errors import (
    EnqueueFailed,
    InvalidMessage,
    InvalidQueueName,
    KafkaUnavailable,
    PermanentError,
    PoisonMessage,
    RetryPolicyRefused,
    TemporaryError,
)
from .retries import TenacityRetries, retry_if_temporary

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "EnqueueFailed",
    "InvalidMessage",
    "InvalidQueueName",
    "KafkaBroker",
    "KafkaUnavailable",
    "PermanentError",
    "PoisonMessage",
    "RetryPolicyRefused",
    "TemporaryError",
    "TenacityRetries",
    "default_middleware",
    "retry_if_temporary",
]
