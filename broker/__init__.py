"""A Dramatiq broker backed by Kafka topics."""

from .admin.partition_counts import PartitionCounts
from .admin.queue_states import PartitionState, QueueState, SuspectRecord
from .broker import KafkaBroker
from .control import Command, PauseResult
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
from .reports.history_event import EventKind, HistoryEvent
from .reports.report import RunningTask, WorkerReport
from .reports.run_history import RunHistory
from .reports.worker_states import WorkerInfo, WorkerState
from .retries import TenacityRetries, retry_if_temporary

__all__ = [
    "CancelUndecided",
    "Command",
    "DeadLetter",
    "DeadLetters",
    "DelayedMessage",
    "EnqueueFailed",
    "EventKind",
    "HistoryEvent",
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
    "PartitionCounts",
    "PartitionKeyRefused",
    "PartitionKeys",
    "PartitionState",
    "PauseResult",
    "Pending",
    "PermanentError",
    "PoisonMessage",
    "QueueState",
    "RetryPolicyRefused",
    "RunHistory",
    "RunningTask",
    "SuspectRecord",
    "TemporaryError",
    "TenacityRetries",
    "TopicMisconfigured",
    "UnknownActor",
    "WorkerInfo",
    "WorkerReport",
    "WorkerState",
    "current_task",
    "default_middleware",
    "retry_if_temporary",
]
