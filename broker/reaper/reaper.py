"""Waits for the deaths of the workers that have registered."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..kafka.types import Membership
from ..process import clock
from . import addresses
from .dead_worker import DeadWorker
from .process_watch import ProcessWatch
from .wire import (
    Goodbye,
    Introduction,
    Joined,
    Left,
    Limited,
    LineBuffer,
    Unlimited,
    WireError,
    decode,
    excess_of,
)

logger = logging.getLogger(__name__)

#: The time for which the deaths after a first one are awaited: those of a command whose processes are killed
#: together are treated together.
TOGETHER_S = 0.02
RECEIVE_BYTES = 64 * 1024
#: The time after the begin in which the reaper prepares nothing: its workers start, and need the processor.
PREPARE_AFTER_S = 2.0


@dataclass(eq=False, slots=True)
class Registration:
    """The connection of one worker, and what it has said.

    Attributes:
      memberships: Its members by the number of its consumer.
      said_goodbye: Whether its end needs no attention.
      limited: Its running tasks with a hard time limit, by their numbers.
      culprit: The task for which it was killed.
    """

    connection: socket.socket
    watch: ProcessWatch
    lines: LineBuffer = field(default_factory=LineBuffer)
    introduction: Introduction | None = None
    memberships: dict[int, Membership] = field(default_factory=dict)
    said_goodbye: bool = False
    limited: dict[int, Limited] = field(default_factory=dict)
    culprit: Limited | None = None

    @property
    def next_limited(self) -> Limited | None:
        """The task that exceeds its limit first; None without such a task, and once the worker is killed."""
        if self.culprit is not None or self.introduction is None:
            return None
        return min(self.limited.values(), key=lambda limited: limited.until_s, default=None)


class Reaper:
    """Serves one command from one thread, until all its workers have ended.

    Parameters:
      listener: A non-blocking socket to which workers connect.
      end_of_command: A file that becomes readable when the command ends: it may be killed, and then sends no
        signal to this process.
      command: The name of the command in death notes.
      bury: Called with the workers that died.
      prepare: Called once, after PREPARE_AFTER_S.
      announce: Called with a worker's introduction and its task, before the worker is killed for that task.

    Attributes:
      registrations: Of the workers that have not ended.
    """

    def __init__(
        self,
        listener: socket.socket,
        end_of_command: ProcessWatch | int | None,
        command: str,
        bury: Callable[[Sequence[DeadWorker]], object],
        prepare: Callable[[], object] = lambda: None,
        announce: Callable[[Introduction, Limited], object] = lambda introduction, limited: None,
    ) -> None:
        self._listener = listener
        self._end_of_command = end_of_command
        self._bury = bury
        self._announce = announce
        self._prepare: Callable[[], object] | None = prepare
        self._command = command
        self._is_orphaned = False
        self._stopping = False
        self.registrations: set[Registration] = set()
        self._dead: list[DeadWorker] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._note_wake)
        if end_of_command is not None:
            self._selector.register(end_of_command, selectors.EVENT_READ, self._note_end_of_command)

    @property
    def waker(self) -> socket.socket:
        """A socket for ``signal.set_wakeup_fd``: a signal ends the wait of :meth:`run`."""
        return self._waker

    def stop(self) -> None:
        """End once the registered workers have ended. A signal handler may call this."""
        self._stopping = True

    def run(self) -> None:
        """Serve until the command ends and no registered worker is left."""
        prepare_s = clock.monotonic_s() + PREPARE_AFTER_S
        while self.registrations or not self._stopping:
            self._step(self._seconds_until_due(prepare_s))
            if self._dead:
                self._bury_dead()
            elif self._prepare is not None and clock.monotonic_s() >= prepare_s:
                self._prepare()
                self._prepare = None
            self._kill_overdue()

    def _seconds_until_due(self, prepare_s: float) -> float | None:
        due_s = [limited.until_s for r in self.registrations if (limited := r.next_limited) is not None]
        if self._prepare is not None:
            due_s.append(prepare_s)
        return max(0.0, min(due_s) - clock.monotonic_s()) if due_s else None

    def _kill_overdue(self) -> None:
        """Kill each worker with a task that exceeds its hard time limit, once Kafka knows which one it is."""
        for registration in list(self.registrations):
            limited = self._overdue(registration)
            if limited is None:
                continue
            assert registration.introduction is not None
            logger.error("Process %d is killed: %s.", registration.watch.pid, excess_of(limited))
            self._announce(registration.introduction, limited)
            if self._overdue(registration) is not limited:
                logger.warning("Process %d lives on: the task has ended meanwhile.", registration.watch.pid)
                continue
            registration.culprit = limited
            try:
                registration.watch.kill()
            except OSError as e:
                logger.error("Process %d could not be killed: %s", registration.watch.pid, e)

    def _overdue(self, registration: Registration) -> Limited | None:
        """The task of a worker that has exceeded its limit, by what the worker has sent up to now."""
        limited = registration.next_limited
        if limited is None or limited.until_s > clock.monotonic_s():
            return None
        self._read_available(registration)
        return limited if registration.limited.get(limited.number) is limited else None

    def close(self) -> None:
        """Close the connections; the listener stays the caller's."""
        for registration in list(self.registrations):
            self._forget(registration)
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def _step(self, timeout_s: float | None) -> None:
        for key, _ in self._selector.select(timeout_s):
            key.data()

    def _bury_dead(self) -> None:
        until_s = clock.monotonic_s() + TOGETHER_S
        while self.registrations and (left_s := until_s - clock.monotonic_s()) > 0:
            self._step(left_s)
        dead, self._dead = self._dead, []
        if not self._is_orphaned:
            siblings = {m for other in self.registrations for m in other.memberships.values()}
            for worker in dead:
                worker.siblings = siblings
        self._bury(dead)

    # Events

    def _note_wake(self) -> None:
        self._woken.recv(RECEIVE_BYTES)

    def _note_end_of_command(self) -> None:
        assert self._end_of_command is not None
        self._selector.unregister(self._end_of_command)
        self._stopping = self._is_orphaned = True

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the client has gone already
            return
        try:
            pid = addresses.peer_pid(connection)
        except (addresses.NotTrusted, OSError) as e:
            logger.warning("A connection to the reaper is refused: %s.", e)
            connection.close()
            return
        connection.setblocking(False)
        registration = Registration(connection, ProcessWatch(pid))
        self.registrations.add(registration)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(registration))
        if registration.watch.can_watch:
            self._selector.register(
                registration.watch, selectors.EVENT_READ, lambda: self._note_death(registration)
            )

    def _receive(self, registration: Registration) -> None:
        """Read what a worker has sent."""
        if registration not in self.registrations:
            return  # it died in the same step
        try:
            while data := registration.connection.recv(RECEIVE_BYTES):
                self._read(registration, data)
        except BlockingIOError:
            return
        except WireError as e:
            logger.warning("The registration of process %d is refused: %s.", registration.watch.pid, e)
            self._forget(registration)
            return
        except OSError as e:
            logger.debug("A connection of process %d was reset: %r", registration.watch.pid, e)
        registration.limited.clear()  # the ends of its tasks are not known any more
        self._selector.unregister(registration.connection)
        if registration.watch.has_ended or not registration.watch.can_watch:
            self._end(registration)
        # Otherwise the end of its process is awaited. A closed connection is no death. And the command ends
        # up to a second later if this process, whose log it reads, ends before its last worker.

    def _read(self, registration: Registration, data: bytes) -> None:
        for line in registration.lines.feed(data):
            match decode(line):
                case Introduction() as introduction:
                    registration.introduction = introduction
                case Joined() as joined:
                    registration.memberships[joined.slot] = joined.membership
                case Left(slot):
                    registration.memberships.pop(slot, None)
                case Goodbye():
                    registration.said_goodbye = True
                    registration.memberships.clear()
                    registration.limited.clear()
                case Limited() as limited:
                    registration.limited[limited.number] = limited
                case Unlimited(number):
                    registration.limited.pop(number, None)

    def _note_death(self, registration: Registration) -> None:
        if registration not in self.registrations:
            return
        self._read_available(registration)  # what it sent before its death is still in the socket
        self._end(registration)

    def _read_available(self, registration: Registration) -> None:
        """Read what is in the socket of a worker."""
        try:
            while data := registration.connection.recv(RECEIVE_BYTES):
                self._read(registration, data)
        except BlockingIOError:
            return
        except (OSError, WireError) as e:
            logger.debug("The last messages of process %d end: %r", registration.watch.pid, e)
        # Of a worker that says nothing more, the end of a task is not known.
        registration.limited.clear()

    def _end(self, registration: Registration) -> None:
        if registration.introduction is not None and not registration.said_goodbye:
            self._dead.append(
                DeadWorker(
                    registration.introduction,
                    registration.watch.exit(),
                    set(registration.memberships.values()),
                    self._command,
                    culprit=registration.culprit,
                )
            )
        self._forget(registration)

    def _forget(self, registration: Registration) -> None:
        self.registrations.discard(registration)
        watched = self._selector.get_map()
        if registration.connection in watched:
            self._selector.unregister(registration.connection)
        if registration.watch.can_watch:
            self._selector.unregister(registration.watch)
        registration.connection.close()
        registration.watch.close()
