"""Gives operators' commands, and waits until they are in force."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from ..errors import ParameterRefused
from ..kafka.clients import Clients
from ..kafka.rights import reading
from ..kafka.topic_reader import TopicReader
from ..kafka.topics import Topics
from ..parameters import check_names, check_seconds, check_texts
from ..process import clock
from ..process.caller import caller
from ..produce.publisher import Publisher, publish_all
from ..produce.record import Record
from .confirmations import Confirmations, QueueWorkers
from .record_format import Command, CommandKind, UnreadableCommand, read, read_key
from .standing import LEASE_S

#: The time after Kafka's acknowledgement of a pause after which no worker has a lease that is older. The rest
#: of a second is for clocks that do not run at the same rate.
IN_FORCE_AFTER_S = LEASE_S + 1.0
#: The interval in which a caller that waits reads the reports of workers.
POLL_INTERVAL_S = 0.25
#: A worker that has just joined its group reports within this time. Afterwards, a member that is in no report
#: counts as one that cannot read commands.
JOINED_REPORTS_WITHIN_S = 3.0
#: A command to one worker expires: the worker may be gone, and its id never comes back.
WORKER_COMMAND_EXPIRES_AFTER_MS = 24 * 3600 * 1000
#: The aborts that stand, at most.
MAX_ABORTS = 100_000
REQUEST_TIMEOUT_MS = 10_000
STALL_TIMEOUT_S = 10.0


T = TypeVar("T")


class Pauses(dict[str, T]):
    """The pauses that stand, by queue.

    Attributes:
      unreadable: The queues whose last command this version cannot read, as it is damaged or of a later
        version: they may be paused, and an earlier pause of theirs may be over.
    """

    def __init__(self, pauses: Mapping[str, T], unreadable: Iterable[str] = ()) -> None:
        super().__init__(pauses)
        self.unreadable = frozenset(unreadable)

    @property
    def is_complete(self) -> bool:
        """Whether each command was read."""
        return not self.unreadable


@dataclass(frozen=True, slots=True)
class PauseResult:
    """A pause that Kafka has acknowledged.

    Attributes:
      in_force: Whether no task of the queue begins any more, on any worker but those in ``unknown``. Nothing
        of the queue begins at all when it is true, ``unknown`` is empty, and ``members_known`` is true.
      confirmed: The workers whose reports say that they have applied it.
      unconfirmed: The living workers of the queue whose reports do not say so yet. Once it is in force, none
        of them begins a task of the queue without having read the pause.
      unknown: The living workers of the queue that cannot read commands: they run its tasks. And the members
        of its consumer group that are in no report, each with its client id and host: they run its tasks if
        they are of an earlier version, and obey if they only write no reports.
      members_known: Whether this client could compare the members of the queue's group with the reports.
        False without the right to read one of them: ``unknown`` may lack workers.
    """

    command: Command
    in_force: bool
    confirmed: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    members_known: bool = True

    @property
    def is_certain(self) -> bool:
        """Whether no task of the queue begins any more, on any worker."""
        return self.in_force and self.members_known and not self.unknown


class Commands:
    """The control topic, as operators and their scripts use it; workers do not.

    Every method raises KafkaUnavailable when Kafka does not answer, and NotAuthorized when this client lacks
    a right.

    Parameters:
      confirmations: Reads whether workers have applied a command.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        confirmations: Confirmations,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self._confirmations = confirmations

    def pause(
        self, queue_name: str, *, reason: str, by: str | None = None, timeout_s: float = 0.0
    ) -> PauseResult:
        """Let no task of a queue begin; see ``KafkaBroker.pause``."""
        check_names(reason=reason)
        if not reason.strip():
            raise ParameterRefused("a pause needs reason=, which each worker logs")
        check_seconds(timeout_s=timeout_s)
        command = self._give(CommandKind.PAUSE, queue_name, reason, by)
        acknowledged_s = clock.monotonic_s()
        while True:
            age_s = clock.monotonic_s() - acknowledged_s
            workers = self._confirmations.of(queue_name)
            result = _result(command, age_s, workers)
            left_s = timeout_s - age_s
            may_report = bool(workers.unreported) and age_s < IN_FORCE_AFTER_S + JOINED_REPORTS_WITHIN_S
            if (result.in_force and not may_report) or left_s <= 0:
                return result
            clock.sleep(min(POLL_INTERVAL_S, left_s))

    def resume(self, queue_name: str, *, reason: str = "", by: str | None = None) -> Command:
        """End the pause of a queue; see ``KafkaBroker.resume``."""
        return self._give(CommandKind.RESUME, queue_name, reason, by)

    def quiet(self, worker_id: str, *, reason: str = "", by: str | None = None) -> Command:
        """Let a worker take no more work; see ``KafkaBroker.quiet``."""
        return self._give(CommandKind.QUIET, worker_id, reason, by)

    def stop(self, worker_id: str, *, reason: str = "", by: str | None = None) -> Command:
        """End a worker; see ``KafkaBroker.stop``."""
        return self._give(CommandKind.STOP, worker_id, reason, by)

    def abort(
        self, message_id: str, *, expires_at_ms: int, reason: str = "", by: str | None = None
    ) -> Command:
        """Let a message not run; see ``KafkaBroker.abort``."""
        return self._give(CommandKind.ABORT, message_id, reason, by, expires_at_ms=expires_at_ms)

    def paused(self) -> Pauses[Command]:
        """The pauses that stand, by queue."""
        standing, unreadable = self._read()
        scope = f"{CommandKind.PAUSE.scope}:"
        return Pauses(
            {c.target: c for c in standing.values() if c.kind is CommandKind.PAUSE},
            (key.removeprefix(scope) for key in unreadable if key.startswith(scope)),
        )

    def pauses(self) -> Pauses[PauseResult]:
        """The pauses that stand, by queue, with the workers that obey them; see ``KafkaBroker.pauses``."""
        found = {}
        paused = self.paused()
        for queue_name, command in paused.items():
            age_s = (clock.wall_ms() - command.at_ms) / 1000
            found[queue_name] = _result(command, age_s, self._confirmations.of(queue_name), is_standing=True)
        return Pauses(found, paused.unreadable)

    def standing(self) -> dict[str, Command]:
        """The last command of each key, expired ones included. A record that cannot be read is left out."""
        return self._read()[0]

    def _read(self) -> tuple[dict[str, Command], set[str]]:
        """The same, and the keys whose last record cannot be read."""
        standing: dict[str, Command] = {}
        unreadable: set[str] = set()
        for key, value in self.records():
            try:
                name = read_key(key)
            except UnreadableCommand:
                continue  # each worker logs it
            unreadable.discard(name)
            if value is None:
                standing.pop(name, None)
                continue
            try:
                standing[name] = read(key, value)
            except UnreadableCommand:
                unreadable.add(name)
        return standing, unreadable

    def records(self) -> list[tuple[bytes | None, bytes | None]]:
        """The key and the value of each record of the control topic; none while it does not exist."""
        return self._clients.ask(
            self._records,
            f"The commands in {self._topics.control!r} could not be read",
            rights=reading(self._topics.control),
        )

    def _records(self) -> list[tuple[bytes | None, bytes | None]]:
        reader = TopicReader(
            self._clients,
            self._topics.control,
            stall_timeout_s=STALL_TIMEOUT_S,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        with closing(reader):
            if not reader.kafka.existing_topics([reader.topic], REQUEST_TIMEOUT_MS):
                return []
            reader.add(reader.kafka.partitions_for_topic(reader.topic))
            return [
                (record.key, record.value)
                for polled in reader.read(reader.ends())
                for records in polled.values()
                for record in records
            ]

    def _give(
        self,
        kind: CommandKind,
        target: str,
        reason: str,
        by: str | None,
        *,
        expires_at_ms: int | None = None,
    ) -> Command:
        check_names(reason=reason)
        check_texts(by=by)
        now_ms = clock.wall_ms()
        if kind.scope == "worker":
            expires_at_ms = now_ms + WORKER_COMMAND_EXPIRES_AFTER_MS
        command = Command(
            id=secrets.token_hex(8),
            kind=kind,
            target=target,
            by=caller() if by is None else by,
            at_ms=now_ms,
            reason=reason,
            expires_at_ms=expires_at_ms,
        )
        records = [Record(self._topics.control, command.encode(), command.key.encode())]
        if kind.scope != "pause":
            records += self._tombstones(of_others_than=command.key)
        publish_all(self._publisher, records, f"The {kind.value} of {target!r} was not recorded")
        return command

    def _tombstones(self, *, of_others_than: str) -> list[Record]:
        """Tombstones of the commands that have expired: nobody else may write there."""
        standing = self.standing()
        aborts = sum(
            command.kind is CommandKind.ABORT and not command.is_expired for command in standing.values()
        )
        if aborts >= MAX_ABORTS:
            raise ParameterRefused(
                f"{aborts} aborts stand, and each worker keeps them all in memory. Pause the queue instead, "
                "or let some of them expire."
            )
        return [
            Record(self._topics.control, None, key.encode())
            for key, command in standing.items()
            if command.is_expired and key != of_others_than
        ]


def _result(
    command: Command, age_s: float, workers: QueueWorkers, *, is_standing: bool = False
) -> PauseResult:
    """The result of a pause ``age_s`` after Kafka has acknowledged it.

    Parameters:
      is_standing: Whether a report that names the paused queue confirms it, too: a report has the ids of the
        last commands only. A report from before the pause may name the queue for an earlier one.
    """
    is_old = age_s >= IN_FORCE_AFTER_S
    said = {report.worker_id: report.control for report in workers.living or ()}
    confirmed = tuple(
        sorted(
            worker
            for worker, control in said.items()
            if command.id in control.applied or (is_standing and command.target in control.paused_queues)
        )
    )
    others = sorted(said.keys() - set(confirmed))
    unable = tuple(w for w in others if said[w].pauses_unknown)
    unconfirmed = tuple(w for w in others if w not in unable)
    unreported = tuple(sorted(map(str, workers.unreported or ())))
    members_known = workers.unreported is not None
    in_force = is_old or (members_known and not unconfirmed and not unreported)
    return PauseResult(command, in_force, confirmed, unconfirmed, unable + unreported, members_known)
