"""Assembles the parts of a broker: the one place that passes each part to those that use it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from dramatiq.message import Message

from .admin.arrivals import ArrivalCounter
from .admin.lane_backlog import LaneBacklog
from .admin.message_search import MessageSearch
from .admin.queue_states import QueueStates
from .admin.unfinished import UnfinishedMessages
from .complete.completer import Completer, PendingDeadLetter
from .complete.key_paces import KeyPaces
from .complete.key_state_writer import KeyStateWriter
from .complete.lane_writer import LaneWriter
from .complete.outgoing import Outgoing
from .complete.queue_end import QueueEnd
from .complete.unique_marks import UniqueMarks
from .consume.config import ConsumerConfig, ConsumerParts
from .consume.consumer import QueueConsumer
from .control.commands import Commands
from .control.confirmations import Confirmations
from .control.notices import NoticeReader
from .control.standing import StandingCommands
from .dead_letters import DeadLetterQueue
from .dead_letters.failures import Failures
from .dead_letters.writer import DeadLetterWriter, Hooks
from .delays import Delays, Forwarder
from .delays.record_format import Delay
from .deliveries.in_flight import InFlightDeliveries
from .kafka.clients import Clients
from .kafka.operations import Operations
from .kafka.rights import Denials
from .kafka.topic_layout import TopicLayout
from .kafka.topics import Topics
from .partition_keys.acknowledged_ends import AcknowledgedEnds
from .process.forks import reset_on_fork
from .produce.publisher import Publisher
from .produce.record import Record
from .reaper.death_note_reader import DeathNoteReader
from .reaper.kill_note_reader import KillNoteReader
from .reaper.registrar import Registrar
from .reaper.wire import Introduction
from .replay import Replayer
from .reports.consumption import ConsumptionCounters
from .reports.reporter import PUBLISH_TIMEOUT_MS, Reporter
from .reports.run_history import HistoryReader
from .reports.runs import Runs
from .reports.sources import Sources, versions_of
from .reports.worker_list import WorkerReader
from .schedules import Firings, QueueEnds, Scheduler, Schedules
from .version import VERSION
from .worker.aborts import Aborts
from .worker.hard_limits import HardLimits
from .worker.identity import WorkerIdentity
from .worker.shutdown import Shutdown
from .worker.topic_repair import TopicRepair

#: The timeout of a consumer's requests. kafka-python's default of 30 s would delay a shutdown by as long.
REQUEST_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a broker, as ``KafkaBroker`` documents them."""

    group_id: str
    namespace: str
    commit_interval_ms: int
    enqueue_timeout_ms: int
    session_timeout_ms: int
    max_crashes: int
    delay_index_dir: str | None
    reports: bool
    history_per_s: int
    app_version: str

    @property
    def client_settings(self) -> dict[str, int]:
        """kafka-python's settings of the members of a consumer group."""
        return {
            "session_timeout_ms": self.session_timeout_ms,
            # A rebalance waits until the heartbeat of each member has announced it.
            "heartbeat_interval_ms": min(1_000, self.session_timeout_ms // 3),
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
        }


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Parts:
    """The parts of one broker, for its own use, tests and tools. They may change with any version.

    Attributes:
      publisher: Sends the messages that the application enqueues.
      completion_publisher: Sends the outboxes of deliveries. It has its own producer, so a worker's dead
        letters and retries do not wait behind the messages of its tasks.
      report_publisher: Sends the reports and the history of a worker after a refusal.
      unfinished: The incomplete messages of a queue.
      queue_states: The state of queues, from logs and commits.
      worker_reader: Reads the reports of all workers.
      history_reader: Reads the history of all runs.
      arrival_counter: Counts the records that came to a queue, by time.
      control: The commands that this process's worker follows.
      aborts: Ends the running tasks of aborted messages.
      hard_limits: Announces tasks with a hard time limit to the reaper.
      notices: Reads them, in a worker process.
      commands: Gives commands, as an operator.
      replayer: Runs messages again.
      schedules: Reads and changes schedules.
      new_firings: Creates the part of a scheduler that enqueues occurrences.
      for_consumers: The parts that the consumers of all queues use.
      consumers: The consumers of this process's workers.
      identity: The identity of this process's worker.
      registrar: Tells the reaper of this process's memberships.
    """

    settings: Settings
    clients: Clients
    topics: Topics
    publisher: Publisher
    completion_publisher: Publisher
    report_publisher: Publisher
    identity: WorkerIdentity
    runs: Runs
    reporter: Reporter
    in_flight: InFlightDeliveries
    completer: Completer
    delays: Delays
    outgoing: Outgoing
    dead_letter_queue: DeadLetterQueue
    failures: Failures
    lane_writer: LaneWriter
    unique_marks: UniqueMarks
    key_paces: KeyPaces
    queue_end: QueueEnd
    lane_backlog: LaneBacklog
    unfinished: UnfinishedMessages
    queue_states: QueueStates
    worker_reader: WorkerReader
    history_reader: HistoryReader
    arrival_counter: ArrivalCounter
    message_search: MessageSearch
    shutdown: Shutdown
    control: StandingCommands
    aborts: Aborts
    hard_limits: HardLimits
    notices: NoticeReader
    commands: Commands
    replayer: Replayer
    schedules: Schedules
    new_firings: Callable[[], Firings]
    for_consumers: ConsumerParts
    consumers: weakref.WeakSet[QueueConsumer]
    registrar: Registrar

    def group_of(self, queue_name: str) -> str:
        """The consumer group of a queue. A common group would rebalance all queues whenever one changes."""
        return self.topics.group(self.settings.group_id, queue_name)

    def operations(self, queue_name: str) -> Operations:
        """The rights that a queue's operations need."""
        return Operations(self.topics, queue_name, self.group_of(queue_name))

    def consumer_config(self, queue_name: str) -> ConsumerConfig:
        return ConsumerConfig(
            queue_name=queue_name,
            topic=self.topics.queue(queue_name),
            lanes_topic=self.topics.lanes(queue_name),
            topics=tuple(self.topics.of_worker(queue_name)),
            group=self.group_of(queue_name),
            application_group=self.settings.group_id,
            commit_interval_s=self.settings.commit_interval_ms / 1000,
            max_crashes=self.settings.max_crashes,
            client_settings=self.settings.client_settings,
        )

    def new_forwarder(self) -> Forwarder:
        return self.delays.forwarder(self.settings.client_settings, self.registrar.slot())

    def new_scheduler(self) -> Scheduler:
        return Scheduler(
            self.clients,
            self.topics,
            self.publisher,
            self.new_firings(),
            self.settings.client_settings,
            declare=self.schedules.declare,
            note_read=self.schedules.log_undeclared,
            slot=self.registrar.slot(),
        )

    def death_note_reader(
        self, forwarder: Callable[[], Forwarder | None], scheduler: Callable[[], Scheduler | None]
    ) -> DeathNoteReader:
        """The reactions of this process's worker to death notes.

        Parameters:
          forwarder, scheduler: The worker's; None before it has one.
        """

        def heartbeat_soon(groups: set[str]) -> None:
            for consumer in list(self.consumers):
                consumer.heartbeat_soon(groups)
            for member in (forwarder(), scheduler()):
                if member is not None:
                    member.heartbeat_soon(groups)

        return DeathNoteReader(
            self.clients, heartbeat_soon=heartbeat_soon, memberships=self.registrar.memberships
        )

    def reset_after_fork(self) -> None:
        """Drop the consumers: in the child of a fork, they belong to the parent."""
        self.consumers.clear()
        self.for_consumers.silent_since_s.clear()

    def close(self) -> None:
        """Close this process's connections."""
        self.completer.stop(timeout_s=self.shutdown.settle_time_left_s())
        self.delays.close()
        self.lane_backlog.close()
        self.queue_end.close()
        self.publisher.close()
        self.completion_publisher.close()
        self.report_publisher.close()


def assemble(
    hooks: Hooks,
    clients: Clients,
    layout: TopicLayout,
    settings: Settings,
    *,
    enqueue: Callable[[Message[Any]], Message[Any]],
    is_paused: Callable[[], bool],
    fails_fast: Callable[[], bool],
    hard_limits_ms: Mapping[str, int] = MappingProxyType({}),
) -> Parts:
    """Create the parts of a broker. No part connects to Kafka.

    Parameters:
      hooks: Calls middleware; the broker itself.
      enqueue: Enqueues a message, as the broker does.
      is_paused: Whether dispatching is paused.
      hard_limits_ms: The hard time limits by the actor's name.
      fails_fast: Whether a join raises the error of a failed message, unless the call decides that.
    """
    topics = Topics(clients, layout, namespace=settings.namespace)
    publisher = Publisher(clients, topics, timeout_ms=settings.enqueue_timeout_ms)
    completion_publisher = Publisher(clients, topics, timeout_ms=settings.enqueue_timeout_ms)
    report_publisher = Publisher(clients, topics, timeout_ms=PUBLISH_TIMEOUT_MS)
    in_flight = InFlightDeliveries()
    identity, runs, denials = WorkerIdentity(), Runs(), Denials()
    consumption = ConsumptionCounters()
    sources = Sources(
        identity=identity,
        actors=hooks,
        assigned=in_flight.assigned,
        memberships=lambda: {member.group: member.member_id for member in registrar.memberships()},
        group_id=settings.group_id,
        topic_of=topics.queue,
        versions=versions_of(VERSION, settings.app_version),
    )
    reporter = Reporter(
        publisher,
        report_publisher,
        topics,
        runs,
        consumption,
        sources,
        denials,
        is_on=settings.reports,
        successes_per_s=settings.history_per_s,
    )
    dead_letters = DeadLetterWriter(topics, hooks, runs.note_dead_letter)
    completer = Completer(completion_publisher, in_flight, give_up=dead_letters.replace_refused)

    def dead_letter_delayed(delay: Delay, error: BaseException) -> PendingDeadLetter:
        pending = dead_letters.undelivered(
            delay.queue,
            message_id=delay.message_id,
            origin=None,
            raw=delay.value,
            headers=delay.headers,
            error=error,
        )
        completer.write(pending)
        return pending

    delays = Delays(
        clients,
        topics,
        publisher,
        index_dir=settings.delay_index_dir,
        add_dead_letter=dead_letter_delayed,
        note_forward=consumption.note_forward,
    )
    acknowledged_ends = AcknowledgedEnds()
    queue_end = QueueEnd(clients)
    marks, paces = (
        KeyStateWriter(completion_publisher, acknowledged_ends, group=settings.group_id) for _ in range(2)
    )
    unique_marks = UniqueMarks(topics, marks, in_flight, queue_end)
    key_paces = KeyPaces(topics, paces, in_flight)
    lane_writer = LaneWriter(
        topics,
        completion_publisher,
        in_flight,
        acknowledged_ends,
        group=settings.group_id,
        give_up=dead_letters.replace_refused,
        unique_marks=unique_marks,
    )
    lane_backlog = LaneBacklog(clients, topics, publisher, group=settings.group_id, written=acknowledged_ends)
    dead_letter_queue = DeadLetterQueue(clients, topics, publisher)
    failures = Failures(dead_letter_queue, wanted=fails_fast)
    shutdown = Shutdown()
    registrar = Registrar(
        lambda: Introduction(
            identity.worker_id,
            clients.bootstrap_servers,
            clients.given_options,
            topics.workers,
            settings.session_timeout_ms,
        )
    )
    worker_reader = WorkerReader(clients, topics.workers)
    commands = Commands(
        clients,
        topics,
        publisher,
        Confirmations(clients, worker_reader, partial(topics.group, settings.group_id)),
    )
    outgoing = Outgoing(topics, delays, publisher, is_declared=lambda queue_name: queue_name in hooks.queues)

    def prepare_occurrence(message: Message[Any]) -> Record:
        hooks.emit_before("enqueue", message, None)
        return outgoing.record(message, None)

    def new_firings() -> Firings:
        return Firings(
            topics,
            publisher,
            QueueEnds(clients, topics),
            prepare_occurrence,
            lambda message: hooks.emit_after("enqueue", message, None),
        )

    control = StandingCommands(in_flight, reporter.control, worker_id=lambda: identity.worker_id)
    aborts = Aborts(in_flight)
    control.on_abort = aborts.interrupt
    parts = Parts(
        settings=settings,
        clients=clients,
        topics=topics,
        publisher=publisher,
        completion_publisher=completion_publisher,
        report_publisher=report_publisher,
        identity=identity,
        runs=runs,
        reporter=reporter,
        in_flight=in_flight,
        completer=completer,
        delays=delays,
        outgoing=outgoing,
        dead_letter_queue=dead_letter_queue,
        failures=failures,
        lane_writer=lane_writer,
        unique_marks=unique_marks,
        key_paces=key_paces,
        queue_end=queue_end,
        lane_backlog=lane_backlog,
        unfinished=UnfinishedMessages(clients, topics, delays, lane_backlog, group_id=settings.group_id),
        queue_states=QueueStates(
            clients, topics, delays, lane_backlog, dead_letter_queue, group_id=settings.group_id
        ),
        worker_reader=worker_reader,
        history_reader=HistoryReader(clients, topics.history),
        arrival_counter=ArrivalCounter(clients, topics),
        message_search=MessageSearch(clients, topics, group_id=settings.group_id),
        shutdown=shutdown,
        control=control,
        aborts=aborts,
        hard_limits=HardLimits(registrar, in_flight, hard_limits_ms, group_id=settings.group_id),
        notices=NoticeReader(clients, topics, control),
        commands=commands,
        replayer=Replayer(
            clients,
            topics,
            publisher,
            commands=commands,
            delays=delays,
            lanes=lane_backlog,
            dead_letters=dead_letter_queue,
            group_id=settings.group_id,
        ),
        schedules=Schedules(hooks, enqueue, clients, topics, publisher),
        new_firings=new_firings,
        consumers=weakref.WeakSet(),
        registrar=registrar,
        for_consumers=ConsumerParts(
            clients=clients,
            topics=topics,
            in_flight=in_flight,
            completer=completer,
            completion_publisher=completion_publisher,
            lane_writer=lane_writer,
            queue_end=queue_end,
            unique_marks=unique_marks,
            key_paces=key_paces,
            acknowledged_ends=acknowledged_ends,
            dead_letters=dead_letters,
            failures=failures,
            shutdown=shutdown,
            topic_repair=TopicRepair(topics, shutdown),
            denials=denials,
            registrar=registrar,
            kill_notes=KillNoteReader(clients, topics.workers),
            hooks=hooks,
            consumption=consumption,
            is_paused=is_paused,
            note_duplicate=runs.note_duplicate,
        ),
    )
    reset_on_fork(parts)
    return parts
