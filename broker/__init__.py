"""A Dramatiq broker backed by Kafka topics."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .admin.message_search import FoundRecord, RecordState, SearchResult
    from .admin.partition_counts import PartitionCounts
    from .admin.queue_states import PartitionState, QueueState, SuspectRecord
    from .broker import KafkaBroker
    from .control import Command, PauseResult
    from .dead_letters import DeadLetter, DeadLetters, Imported, ImportNote, Resolved, default_middleware
    from .dead_letters.dead_letter import Filters
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
        UnknownWorker,
    )
    from .kafka.topic_states import TopicFinding, TopicState
    from .partition_keys import PartitionKeys
    from .replay import Replay, ReplayResult, ReplayState
    from .reports.counters import ActorCounters
    from .reports.current_task import current_task
    from .reports.history_event import EventKind, HistoryEvent
    from .reports.report import RunningTask, WorkerReport
    from .reports.run_history import RunHistory
    from .reports.worker_states import WorkerInfo, WorkerState
    from .retries import TenacityRetries, retry_if_temporary

__all__ = [
    "ActorCounters",
    "CancelUndecided",
    "Command",
    "DeadLetter",
    "DeadLetters",
    "DelayedMessage",
    "EnqueueFailed",
    "EventKind",
    "Filters",
    "FoundRecord",
    "HistoryEvent",
    "ImportNote",
    "Imported",
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
    "RecordState",
    "Replay",
    "ReplayResult",
    "ReplayState",
    "Resolved",
    "RetryPolicyRefused",
    "RunHistory",
    "RunningTask",
    "SearchResult",
    "SuspectRecord",
    "TemporaryError",
    "TenacityRetries",
    "TopicFinding",
    "TopicMisconfigured",
    "TopicState",
    "UnknownActor",
    "UnknownWorker",
    "WorkerInfo",
    "WorkerReport",
    "WorkerState",
    "current_task",
    "default_middleware",
    "retry_if_temporary",
]

#: The modules of the public names. A name is imported with its first use: the reaper of a command must be
#: ready before it has imported the broker and kafka-python, which takes half a second.
_HOMES = {
    "admin.message_search": (
        "FoundRecord",
        "RecordState",
        "SearchResult",
    ),
    "admin.partition_counts": ("PartitionCounts",),
    "admin.queue_states": (
        "PartitionState",
        "QueueState",
        "SuspectRecord",
    ),
    "broker": ("KafkaBroker",),
    "control": (
        "Command",
        "PauseResult",
    ),
    "dead_letters": (
        "DeadLetter",
        "DeadLetters",
        "Imported",
        "ImportNote",
        "Resolved",
        "default_middleware",
    ),
    "dead_letters.dead_letter": ("Filters",),
    "delays": (
        "CancelUndecided",
        "DelayedMessage",
        "Outcome",
        "Pending",
    ),
    "errors": (
        "EnqueueFailed",
        "InvalidMessage",
        "InvalidQueueName",
        "KafkaUnavailable",
        "MessageFailed",
        "MessageOfUnknownActor",
        "NoCurrentTask",
        "NotAuthorized",
        "NotNow",
        "PartitionKeyRefused",
        "PermanentError",
        "PoisonMessage",
        "RetryPolicyRefused",
        "TemporaryError",
        "TopicMisconfigured",
        "UnknownActor",
        "UnknownWorker",
    ),
    "kafka.topic_states": (
        "TopicFinding",
        "TopicState",
    ),
    "partition_keys": ("PartitionKeys",),
    "replay": (
        "Replay",
        "ReplayResult",
        "ReplayState",
    ),
    "reports.counters": ("ActorCounters",),
    "reports.current_task": ("current_task",),
    "reports.history_event": (
        "EventKind",
        "HistoryEvent",
    ),
    "reports.report": (
        "RunningTask",
        "WorkerReport",
    ),
    "reports.run_history": ("RunHistory",),
    "reports.worker_states": (
        "WorkerInfo",
        "WorkerState",
    ),
    "retries": (
        "TenacityRetries",
        "retry_if_temporary",
    ),
}

if not TYPE_CHECKING:  # a type checker would take every name for a public one

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names:
                found = getattr(importlib.import_module(f"{__name__}.{module}"), name)
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
