"""The settings of a queue's consumer, and the parts of the broker that it uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dramatiq.message import Message

from ..complete.completer import Completer
from ..complete.key_paces import KeyPaces
from ..complete.lane_writer import LaneWriter
from ..complete.queue_end import QueueEnd
from ..complete.unique_marks import UniqueMarks
from ..dead_letters.failures import Failures
from ..dead_letters.writer import DeadLetterWriter, Hooks
from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.clients import Clients
from ..kafka.rights import Denials
from ..kafka.topics import Topics
from ..partition_keys.acknowledged_ends import AcknowledgedEnds
from ..produce.publisher import Publisher
from ..reaper.kill_note_reader import KillNoteReader
from ..reaper.registrar import Registrar
from ..reports.consumption import ConsumptionCounters
from ..worker.shutdown import Shutdown
from ..worker.topic_repair import TopicRepair


@dataclass(frozen=True, slots=True)
class ConsumerConfig:
    """The settings of one queue's consumer.

    Attributes:
      queue_name: Dramatiq's name of the queue.
      topic: The queue's topic.
      lanes_topic: The topic in which keyed messages of the queue wait.
      topics: The topics that a worker of the queue needs; ``lanes_topic`` is created on first use.
      group: The queue's consumer group.
      application_group: The ``group_id`` that the groups of all queues begin with.
      commit_interval_s: The time between two commits of completed offsets.
      max_crashes: The number of workers that died during a record's run after which it is dead-lettered.
      client_settings: kafka-python's settings of the consumer, such as ``session_timeout_ms``.
    """

    queue_name: str
    topic: str
    lanes_topic: str
    topics: tuple[str, ...]
    group: str
    application_group: str
    commit_interval_s: float
    max_crashes: int
    client_settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ConsumerParts:
    """The parts of a broker that the consumers of all its queues share.

    Attributes:
      completion_publisher: Sends the outboxes of deliveries, and the records of the lanes topics.
      acknowledged_ends: The ends of the acknowledged records in the lanes topics.
      registrar: Tells the reaper of the consumers' memberships.
      kill_notes: Reads for which tasks workers were killed.
      hooks: Calls middleware, and knows the declared actors.
      consumption: Counts commits, rebalances and repeated deliveries.
      is_paused: Whether dispatching is paused, as while a task's database is unreachable.
      queue_end: Asks for the ends of the queues' partitions.
      unique_marks: Writes where unique keys were freed, and drops them.
      key_paces: Writes the paces of keys with a rate, and drops them.
      note_duplicate: Notes a unique message that does not run, as it is a duplicate.
      silent_since_s: The time of Kafka's last answer to the heartbeats of a silent queue
        (``clock.monotonic_s()``), by queue. It outlives a consumer, which Dramatiq replaces after an error.
    """

    clients: Clients
    topics: Topics
    in_flight: InFlightDeliveries
    completer: Completer
    completion_publisher: Publisher
    lane_writer: LaneWriter
    queue_end: QueueEnd
    unique_marks: UniqueMarks
    key_paces: KeyPaces
    acknowledged_ends: AcknowledgedEnds
    dead_letters: DeadLetterWriter
    failures: Failures
    shutdown: Shutdown
    topic_repair: TopicRepair
    denials: Denials
    registrar: Registrar
    kill_notes: KillNoteReader
    hooks: Hooks
    consumption: ConsumptionCounters
    is_paused: Callable[[], bool]
    note_duplicate: Callable[[Message[Any]], None]
    silent_since_s: dict[str, float] = field(default_factory=dict)
