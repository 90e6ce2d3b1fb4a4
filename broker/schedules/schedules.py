"""The schedules of a namespace, as applications and operators see and change them."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol, cast

from dramatiq.actor import Actor
from dramatiq.broker import Broker
from dramatiq.errors import ActorNotFound
from dramatiq.message import Message

from ..errors import ScheduleNotFound, ScheduleRefused
from ..kafka.clients import Clients
from ..kafka.rights import reading
from ..kafka.topic_reader import TopicReader
from ..kafka.topics import Topics
from ..parameters import check_names, check_texts
from ..partition_keys import PartitionKeys
from ..process import clock
from ..process.caller import caller
from ..produce.publisher import Publisher, publish_all
from .book import Book
from .record_format import (
    PARTITION,
    Definition,
    Entry,
    Gone,
    Pause,
    Source,
    UnreadableSchedule,
    check_name,
    read,
    record,
)
from .timing import Timing

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_MS = 10_000
STALL_TIMEOUT_S = 10.0


class HasActors(Protocol):
    """The part of a broker that knows actors."""

    @property
    def actors(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule, as the topic has it.

    Attributes:
      timing: A :class:`Cron` or :class:`Every`.
      source: ``"code"`` when an actor's ``schedule=`` declares it, and ``"operator"`` when
        ``broker.schedules.put`` has written it.
      by: Who wrote it, and who paused it.
      next_run: The next occurrence, without its jitter; None while it is paused, or when there is none. A
        time in the past says that no worker enqueues schedules now.
      last_run: The last occurrence that was enqueued.
      missed: How often occurrences were left out because they were overdue.
    """

    name: str
    actor_name: str
    queue_name: str
    timing: Timing
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    source: Source
    by: str
    is_paused: bool
    paused_by: str
    pause_reason: str
    next_run: datetime | None
    last_run: datetime | None
    missed: int


class Schedules:
    """Reads and changes schedules. Any process can do this, without a worker.

    Every method raises KafkaUnavailable when Kafka does not answer, and NotAuthorized when this client lacks
    a right. A change takes effect on the worker that enqueues schedules within milliseconds.

    Parameters:
      broker: Has the actors.
      enqueue: Enqueues the message of :meth:`run_now`.
    """

    def __init__(
        self,
        broker: HasActors,
        enqueue: Callable[[Message[Any]], Message[Any]],
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
    ) -> None:
        self._broker = broker
        self._enqueue = enqueue
        self._clients = clients
        self._topics = topics
        self._publisher = publisher

    def put(
        self,
        name: str,
        actor: Actor[Any, Any] | str,
        timing: Timing,
        *,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        by: str | None = None,
    ) -> Schedule:
        """Write a schedule, in the place of one with the same name. The first occurrence is after this call,
        unless an earlier schedule of the name has the same times.

        A schedule that code declares keeps this definition until it is deleted: workers do not replace it.

        Parameters:
          actor: An actor, or the name of one that this process declares.
          args, kwargs: The arguments of each message, as JSON.
          options: The options of each message, such as ``partition_key``.
          by: Who; this system's user and host by default.

        Raises:
          ScheduleRefused: When the name, the timing or an argument cannot be.
          ActorNotFound: When no actor of this process has that name.
        """
        if isinstance(actor, str) and actor not in self._broker.actors:
            raise ActorNotFound(actor)
        declared = self._broker.actors[actor] if isinstance(actor, str) else actor
        who = caller() if by is None else by
        made = self._definition(declared, name, timing, args, kwargs or {}, options or {}, "operator", who)
        book = self._read()
        if (before := book.definitions.get(name)) is not None and before.keeps_time(made):
            made = replace(made, since_ms=before.since_ms)
        self._write(made)
        book.take(made)
        return _schedule(book, name)

    def get(self, name: str) -> Schedule | None:
        """A schedule; None without one of that name."""
        book = self._read()
        return _schedule(book, name) if name in book.definitions else None

    def list(self) -> builtins.list[Schedule]:
        """All schedules, by name."""
        book = self._read()
        return [_schedule(book, name) for name in sorted(book.definitions)]

    def pause(self, name: str, *, reason: str = "", by: str | None = None) -> None:
        """Let a schedule enqueue nothing until :meth:`resume`. Pauses survive a new declaration.

        Raises:
          ScheduleNotFound: When there is no schedule of that name.
        """
        self._set_paused(name, True, reason, by)

    def resume(self, name: str, *, reason: str = "", by: str | None = None) -> None:
        """End the pause of a schedule. The occurrences of the pause do not run.

        Raises:
          ScheduleNotFound: When there is no schedule of that name.
        """
        self._set_paused(name, False, reason, by)

    def delete(self, name: str) -> bool:
        """Delete a schedule; False without one of that name.

        A schedule that code declares comes back with the next start of a worker: remove it from the code, or
        pause it.
        """
        is_there = name in self._read().definitions
        if is_there:
            self._write(Gone(Definition, name), Gone(Pause, name))
        return is_there

    def run_now(self, name: str) -> Message[Any]:
        """Enqueue a message of a schedule now, beside its occurrences, and return the message. A paused
        schedule runs, too.

        Raises:
          ScheduleNotFound: When there is no schedule of that name.
          EnqueueFailed: When Kafka did not acknowledge the message in time. It may still arrive.
        """
        definition = self._existing(self._read(), name)
        message: Message[Any] = Message(
            queue_name=definition.queue_name,
            actor_name=definition.actor_name,
            args=definition.args,
            kwargs=dict(definition.kwargs),
            options={**definition.options, "schedule": name},
        )
        return self._enqueue(message)

    # Declarations

    @property
    def declared(self) -> builtins.list[Definition]:
        """The schedules of this process's actors."""
        return [
            self._definition(actor, actor.actor_name, actor.options["schedule"], (), {}, {}, "code", caller())
            for actor in self._broker.actors.values()
            if actor.options.get("schedule") is not None
        ]

    def declare(self) -> None:
        """Write the schedules of this process's actors that the topic does not have.

        A declaration with a lower version than the one in the topic is not written, and neither is one that
        an operator has replaced. Of two different declarations with one version, the later one counts.
        """
        if declared := self.declared:
            book = self._read()
            self._write(*(made for made in (_update(d, book) for d in declared) if made is not None))

    def log_undeclared(self, book: Book) -> None:
        """Log the schedules of other code: it may be gone."""
        names = {definition.name for definition in self.declared}
        for name, definition in sorted(book.definitions.items()):
            if definition.source == "code" and name not in names:
                _log_undeclared(definition)

    def _definition(
        self,
        actor: Actor[Any, Any],
        name: str,
        timing: Timing,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        source: Source,
        by: str,
    ) -> Definition:
        check_timing(timing, f"the schedule {name!r}")
        message: Message[Any] = Message(
            queue_name=actor.queue_name,
            actor_name=actor.actor_name,
            args=tuple(args),
            kwargs=dict(kwargs),
            options=dict(options),
        )
        # Here, because the owner of the schedules may not declare the actor.
        PartitionKeys().before_enqueue(cast("Broker", self._broker), message, None)
        definition = Definition(
            check_name(name),
            actor.actor_name,
            actor.queue_name,
            timing,
            tuple(message.args),
            message.kwargs,
            message.options,
            clock.wall_ms(),
            source,
            by,
        )
        definition.encode()
        return definition

    # The topic

    def _set_paused(self, name: str, is_paused: bool, reason: str, by: str | None) -> None:
        check_names(name=name, reason=reason)
        check_texts(by=by)
        self._existing(self._read(), name)
        self._write(Pause(name, is_paused, clock.wall_ms(), caller() if by is None else by, reason))

    def _existing(self, book: Book, name: str) -> Definition:
        if name not in book.definitions:
            raise ScheduleNotFound(
                f"There is no schedule {name!r}. The schedules are: {sorted(book.definitions)}."
            )
        return book.definitions[name]

    def _write(self, *entries: Entry) -> None:
        if not entries:
            return
        records = [record(self._topics.schedules, entry) for entry in entries]
        publish_all(self._publisher, records, "The schedules were not changed")

    def _read(self) -> Book:
        topic = self._topics.schedules
        return self._clients.ask(
            self._read_once, f"The schedules in {topic!r} could not be read", rights=reading(topic)
        )

    def _read_once(self) -> Book:
        book = Book()
        topic = self._topics.schedules
        reader = TopicReader(
            self._clients, topic, stall_timeout_s=STALL_TIMEOUT_S, request_timeout_ms=REQUEST_TIMEOUT_MS
        )
        with closing(reader):
            if not reader.kafka.existing_topics([topic], REQUEST_TIMEOUT_MS):
                return book
            reader.add([PARTITION])
            for polled in reader.read(reader.ends()):
                for records in polled.values():
                    for found in records:
                        try:
                            entry = read(found.key, found.value, found.timestamp)
                        except UnreadableSchedule:
                            continue  # the owner logs it
                        if entry is not None:
                            book.take(entry)
        return book


def check_timing(timing: object, what: str) -> None:
    """Raise ScheduleRefused unless ``timing`` is one."""
    if not isinstance(timing, Timing):
        raise ScheduleRefused(f"The timing of {what} is {timing!r}: pass Cron(...) or Every(...).")


def _update(declared: Definition, book: Book) -> Definition | None:
    """The definition to write for a declaration; None when the topic's stays."""
    before = book.definitions.get(declared.name)
    if before is None:
        return declared
    if before.source == "operator" or before.says_the_same(declared):
        return None
    if before.timing.version > declared.timing.version:
        logger.warning(
            "The schedule %r is declared with version %d here. Version %d, of other code, stays.",
            declared.name, declared.timing.version, before.timing.version,
        )  # fmt: skip
        return None
    logger.warning("The declaration of the schedule %r changes from %s to %s.",
                   declared.name, before.timing, declared.timing)  # fmt: skip
    return replace(declared, since_ms=before.since_ms) if before.keeps_time(declared) else declared


def _log_undeclared(definition: Definition) -> None:
    logger.warning(
        "The schedule %r of the actor %r is not declared by this code, and continues. If no code declares it "
        "any more, delete it: broker.schedules.delete(%r).",
        definition.name, definition.actor_name, definition.name,
    )  # fmt: skip


def _schedule(book: Book, name: str) -> Schedule:
    definition, state, pause = book.definitions[name], book.states.get(name), book.pauses.get(name)
    is_paused = pause is not None and pause.is_paused
    return Schedule(
        name=name,
        actor_name=definition.actor_name,
        queue_name=definition.queue_name,
        timing=definition.timing,
        args=definition.args,
        kwargs=definition.kwargs,
        options=definition.options,
        source=definition.source,
        by=definition.by,
        is_paused=is_paused,
        paused_by=pause.by if pause is not None and is_paused else "",
        pause_reason=pause.reason if pause is not None and is_paused else "",
        next_run=_time(book.next_ms(name)),
        last_run=_time(state.ran_ms if state is not None else None),
        missed=state.missed if state is not None else 0,
    )


def _time(time_ms: int | None) -> datetime | None:
    return None if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC)
