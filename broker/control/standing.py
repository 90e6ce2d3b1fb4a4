"""The commands that stand, as this worker process has read them, and their effect on its gate."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.types import ConsumedRecord
from ..process import clock
from ..process.one_line import one_line
from ..reports.sources import ControlStatus
from .record_format import Command, CommandKind, UnknownKind, UnreadableCommand, read, read_key

logger = logging.getLogger(__name__)

#: The lease of a fresh read of the control topic: the time for which tasks may begin after it. Once a command
#: is older than this, no worker begins a task without having read it. It is the default of a session timeout:
#: a worker that Kafka has not answered for so long has lost its partitions.
LEASE_S = 10.0


class StandingCommands:
    """The commands that stand. One thread calls all methods, that of the notice reader.

    A read from the beginning of the topic is staged: until its end the earlier state stays in force.

    Parameters:
      status: Is told of each change, and lets a report follow.
      worker_id: Returns the id of this worker.

    Attributes:
      on_quiet: Called once, when this worker takes no more work.
      on_stop: Called once, when it is to end as after SIGTERM.
      on_abort: Called with the ids of messages whose running tasks are to end.
    """

    def __init__(
        self, in_flight: InFlightDeliveries, status: ControlStatus, *, worker_id: Callable[[], str]
    ) -> None:
        self.on_quiet: Callable[[], None] = lambda: None
        self.on_stop: Callable[[], None] = lambda: None
        self.on_abort: Callable[[frozenset[str]], None] = lambda message_ids: None
        self._in_flight = in_flight
        self._status = status
        self._worker_id = worker_id
        self._is_unknown = False
        self._standing: dict[str, Command] = {}
        self._staged: dict[str, Command] | None = None
        self._applied: set[str] = set()

    # The lease

    def close_until_read(self) -> None:
        """Begin no task before the topic was read to its end. The worker has just been booted."""
        with self._in_flight.lock:
            gate = self._in_flight.gate
            gate.open_until_s, gate.is_quiet = -math.inf, False

    def let_go(self) -> None:
        """Open the gate: the process is no worker any more."""
        self._standing, self._staged = {}, None
        with self._in_flight.lock:
            gate = self._in_flight.gate
            gate.open_until_s, gate.is_quiet, gate.paused, gate.aborted = math.inf, False, frozenset(), {}

    def note_fresh(self, as_of_s: float) -> None:
        """Note that every command that Kafka had acknowledged at ``as_of_s`` is applied."""
        self._extend(as_of_s, is_unknown=False)

    def note_unreadable(self, as_of_s: float) -> None:
        """Note that Kafka answered at ``as_of_s``, and that the topic cannot be read. Earlier commands stay
        in force.
        """
        self._extend(as_of_s, is_unknown=True)

    def _extend(self, as_of_s: float, *, is_unknown: bool) -> None:
        with self._in_flight.lock:
            gate = self._in_flight.gate
            gate.open_until_s = max(gate.open_until_s, as_of_s + LEASE_S)
        if is_unknown != self._is_unknown:
            self._is_unknown = is_unknown
            self._tell_status()

    def _tell_status(self, *applied: str) -> None:
        gate = self._in_flight.gate
        self._status.note(
            *applied,
            pauses_unknown=self._is_unknown,
            paused_queues=sorted(gate.paused),
            quiet=gate.is_quiet,
        )

    @property
    def is_reading(self) -> bool:
        """Whether a read from the beginning of the topic has not come to its end."""
        return self._staged is not None

    @property
    def is_lapsed(self) -> bool:
        """Whether the lease of an earlier read has ended."""
        return -math.inf < self._in_flight.gate.open_until_s <= clock.monotonic_s()

    # Records

    def begin_reading(self) -> None:
        """Note that the topic is read from its beginning."""
        self._staged = {}

    def take(self, record: ConsumedRecord) -> None:
        """Take the next record of the topic. It has an effect with the next call of :meth:`apply`."""
        commands = self._standing if self._staged is None else self._staged
        try:
            if record.value is None:
                commands.pop(read_key(record.key), None)
            else:
                command = read(record.key, record.value)
                commands[command.key] = command
        except UnknownKind as e:
            logger.debug(
                "%s-%d: the record at offset %d is no command to a worker: %s",
                record.topic, record.partition, record.offset, e,
            )  # fmt: skip
        except UnreadableCommand as e:
            logger.error(
                "%s-%d: the command at offset %d is skipped: %s",
                record.topic, record.partition, record.offset, e,
            )  # fmt: skip

    def end_reading(self) -> None:
        """Note that the topic is read to its end."""
        if self._staged is not None:
            self._standing, self._staged = self._staged, None
            self.apply()

    def forget(self) -> None:
        """Note that there is no topic, and so no command."""
        self._staged = {}
        self.end_reading()

    def apply(self) -> None:
        """Apply the commands that were taken, unless they belong to a read that has not ended."""
        if self._staged is not None:
            return
        paused = frozenset(
            command.target for command in self._standing.values() if command.kind is CommandKind.PAUSE
        )
        aborts = [c for c in self._standing.values() if c.kind is CommandKind.ABORT and not c.is_expired]
        new = [command for command in self._standing.values() if command.id not in self._applied]
        mine = self._standing.get(f"worker:{self._worker_id()}")
        is_obeyed = mine is not None and not mine.is_expired
        with self._in_flight.lock:
            gate = self._in_flight.gate
            before, gate.paused = gate.paused, paused
            gate.aborted = {command.target: command.expires_at_ms or 0 for command in aborts}
            gate.is_quiet = gate.is_quiet or is_obeyed
        self._applied = {command.id for command in self._standing.values()}
        self._log(before, paused)
        concerning = [command for command in new if command.kind.scope == "pause" or command is mine]
        if concerning or before != paused:
            self._tell_status(*(command.id for command in concerning))
        if added := frozenset(command.target for command in aborts if command in new):
            self.on_abort(added)
        if mine is not None and is_obeyed and mine in new:
            self._obey(mine)

    def _log(self, before: frozenset[str], paused: frozenset[str]) -> None:
        for queue_name in sorted(before ^ paused):
            command = self._standing.get(f"pause:{queue_name}")
            how = "paused" if queue_name in paused else "resumed"
            if command is None:
                logger.warning("The queue %r is %s: its pause was removed.", queue_name, how)
            else:
                logger.warning(
                    "The queue %r is %s by %s: %s",
                    queue_name,
                    how,
                    one_line(command.by),
                    one_line(command.reason or "no reason"),
                )

    def _obey(self, command: Command) -> None:
        logger.warning(
            "%s asks this worker to %s: %s",
            one_line(command.by),
            "end" if command.kind is CommandKind.STOP else "take no more work",
            one_line(command.reason or "no reason"),
        )
        (self.on_stop if command.kind is CommandKind.STOP else self.on_quiet)()
