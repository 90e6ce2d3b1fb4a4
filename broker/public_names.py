"""The public names of the package, which imports this module with the first use of one of them."""

from .admin.arrivals import Arrivals
from .admin.lane_backlog import LaneState
from .admin.message_search import FoundRecord, RecordState, SearchResult
from .admin.partition_counts import PartitionCounts
from .admin.queue_states import PartitionState, QueueState, SuspectRecord
from .broker import KafkaBroker
from .control import AbortOutcome, Command, PauseResult, Pauses
from .dead_letters import DeadLetter, DeadLetters, Imported, ImportNote, Resolved, default_middleware
from .dead_letters.dead_letter import Filters
from .delays import Cancellation, CancelUndecided, DelayedMessage, Outcome, Pending
from .delays.index_check import IndexFileFinding
from .errors import (
    Abort,
    EnqueueFailed,
    ExpiryRefused,
    HardTimeLimitRefused,
    InvalidMessage,
    InvalidQueueName,
    KafkaUnavailable,
    KeyLimitRefused,
    MessageExpired,
    MessageFailed,
    MessageOfUnknownActor,
    NoCurrentTask,
    NotAuthorized,
    NotNow,
    ParameterRefused,
    PartitionKeyRefused,
    PermanentError,
    PoisonMessage,
    RetryPolicyRefused,
    ScheduleNotFound,
    ScheduleRefused,
    TemporaryError,
    TopicMisconfigured,
    UniqueRefused,
    UnknownActor,
    UnknownWorker,
    UnreadableResolution,
)
from .kafka.topic_plan import ClientKind, PlannedRight, PlannedTopic, TopicDifference, TopicPlan
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
from .schedules import Cron, Every, Schedule

__all__ = [
    "Abort",
    "AbortOutcome",
    "ActorCounters",
    "Arrivals",
    "CancelUndecided",
    "Cancellation",
    "ClientKind",
    "Command",
    "Cron",
    "DeadLetter",
    "DeadLetters",
    "DelayedMessage",
    "EnqueueFailed",
    "EventKind",
    "Every",
    "ExpiryRefused",
    "Filters",
    "FoundRecord",
    "HardTimeLimitRefused",
    "HistoryEvent",
    "ImportNote",
    "Imported",
    "IndexFileFinding",
    "InvalidMessage",
    "InvalidQueueName",
    "KafkaBroker",
    "KafkaUnavailable",
    "KeyLimitRefused",
    "LaneState",
    "MessageExpired",
    "MessageFailed",
    "MessageOfUnknownActor",
    "NoCurrentTask",
    "NotAuthorized",
    "NotNow",
    "Outcome",
    "ParameterRefused",
    "PartitionCounts",
    "PartitionKeyRefused",
    "PartitionKeys",
    "PartitionState",
    "PauseResult",
    "Pauses",
    "Pending",
    "PermanentError",
    "PlannedRight",
    "PlannedTopic",
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
    "Schedule",
    "ScheduleNotFound",
    "ScheduleRefused",
    "SearchResult",
    "SuspectRecord",
    "TemporaryError",
    "TenacityRetries",
    "TopicDifference",
    "TopicFinding",
    "TopicMisconfigured",
    "TopicPlan",
    "TopicState",
    "UniqueRefused",
    "UnknownActor",
    "UnknownWorker",
    "UnreadableResolution",
    "WorkerInfo",
    "WorkerReport",
    "WorkerState",
    "current_task",
    "default_middleware",
    "retry_if_temporary",
]
