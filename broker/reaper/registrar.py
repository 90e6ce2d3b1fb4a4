"""Tells the reaper of a command which members of which groups a worker process has."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable

from ..kafka.types import Membership
from ..process import clock
from ..process.backoff import Backoff
from ..process.forks import reset_on_fork
from ..process.one_line import one_line
from . import addresses
from .wire import (
    Goodbye,
    Introduction,
    Joined,
    Left,
    Limited,
    Unlimited,
    WorkerMessage,
    encode,
    not_transferable,
)

logger = logging.getLogger(__name__)

#: The pauses between attempts to connect. A command starts its reaper after all its workers have booted.
FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 0.2
#: The time after which a worker stops trying: it was not started by Dramatiq's command line.
CONNECT_TIMEOUT_S = 600.0
#: The time for which a task with a hard time limit waits for that at the boot of a worker.
AWAIT_TIMEOUT_S = 15.0
AWAIT_POLL_S = 0.02
#: The timeout of the first messages, which are secrets and memberships of some kilobytes.
SEND_TIMEOUT_S = 5.0
#: The buffer of a connection: the memberships of a thousand queues.
SEND_BUFFER_BYTES = 256 * 1024


class MembershipSlot:
    """The membership of one consumer at a time. Thread-safe; no method waits."""

    def __init__(self, registrar: Registrar, number: int) -> None:
        self._registrar = registrar
        self._number = number

    def join(self, membership: Membership) -> None:
        """Note the consumer's member id, instead of an earlier one."""
        self._registrar.note(self._number, membership)

    def leave(self) -> None:
        """Note that the consumer has left its group."""
        self._registrar.note(self._number, None)


class Registrar:
    """The memberships of this process, and the connection that tells the reaper of them.

    A connection is made only in a process that Dramatiq's command line started. Nothing else depends on it:
    without one, the partitions of a killed worker move after the session timeout.

    Parameters:
      introduce: Makes the first message of the connection.
    """

    def __init__(self, introduce: Callable[[], Introduction]) -> None:
        self._introduce = introduce
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Drop the connection and the memberships, which are the parent's."""
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._memberships: dict[int, Membership] = {}
        self._limited: dict[int, Limited] = {}
        self._is_without_reaper = self._is_absence_logged = False
        self._connection: socket.socket | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def slot(self) -> MembershipSlot:
        """A slot for another consumer."""
        return MembershipSlot(self, next(self._numbers))

    def memberships(self) -> set[Membership]:
        """The memberships of the consumers of this process."""
        with self._lock:
            return set(self._memberships.values())

    def transfer_refusal(self) -> str:
        """The reason why there can be no reaper for this process; empty when there can."""
        if not hasattr(socket, "AF_UNIX"):
            return "this system has no Unix sockets"
        options = self._introduce().client_options
        if not (names := not_transferable(options)):
            return ""
        shown = ", ".join(f"{name!r} ({type(options[name]).__name__})" for name in sorted(names))
        return f"client_options has {shown}, which cannot be given to another process"

    def absence(self) -> str:
        """The reason why this process has no reaper, as far as it is known at the boot; empty otherwise."""
        if multiprocessing.parent_process() is None:
            return "it was not started by the dramatiq command, and has no reaper"
        refusal = self.transfer_refusal()
        return f"its command has no reaper, as {refusal}" if refusal else ""

    # Hard time limits

    def await_reaper(self) -> None:
        """Wait until the reaper knows this process, for AWAIT_TIMEOUT_S at most, and once.

        A task that holds the interpreter's lock before that would never be known. A process that has no
        reaper does not wait.
        """
        if self._connection is not None or self._is_without_reaper or self._thread is None:
            return
        give_up_s = clock.monotonic_s() + AWAIT_TIMEOUT_S
        while self._connection is None and not self._stop.is_set() and self._thread.is_alive():
            if clock.monotonic_s() >= give_up_s:
                break
            clock.sleep(AWAIT_POLL_S)
        if self._connection is None:
            self._is_without_reaper = True

    def limit(self, limited: Limited) -> None:
        """Tell the reaper that a task with a hard time limit has begun. It does not wait."""
        with self._lock:
            self._limited[limited.number] = limited
            self._send_locked(limited)
            is_news = self._is_without_reaper and not self._is_absence_logged
            self._is_absence_logged |= is_news
        if is_news:
            logger.error(
                "The hard time limit of %s, and of the other tasks of this worker, is not enforced: it has "
                "no connection to the reaper of its command.",
                one_line(limited.actor_name),
            )

    def end_limit(self, number: int) -> None:
        """Tell the reaper that such a task has ended. A second call for a number changes nothing."""
        with self._lock:
            self._limited.pop(number, None)
            self._send_locked(Unlimited(number))

    # A worker's life

    def start(self) -> None:
        """Begin to connect, in a worker of Dramatiq's command line."""
        parent = multiprocessing.parent_process()
        if parent is None or parent.pid is None or self._thread is not None or self.transfer_refusal():
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(parent.pid, self._stop), name="dramatiq-kafka-registrar", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Take leave: this worker has stopped, and its consumers are closed."""
        self._stop.set()
        self._send(Goodbye())
        with self._lock:
            connection, self._connection = self._connection, None
            self._memberships.clear()
            self._limited.clear()
        if connection is not None:
            connection.close()
        self._thread = None

    def note(self, slot: int, membership: Membership | None) -> None:
        """Note the membership of a slot, and tell the reaper. It does not wait."""
        with self._lock:
            if membership is None:
                if self._memberships.pop(slot, None) is None:
                    return
            else:
                self._memberships[slot] = membership
            self._send_locked(Left(slot) if membership is None else Joined(slot, *membership))

    # The connection

    def _run(self, master_pid: int, stop: threading.Event) -> None:
        connection = self._connect(master_pid, stop)
        if connection is not None and not self._register(connection, stop):
            connection.close()

    def _connect(self, master_pid: int, stop: threading.Event) -> socket.socket | None:
        backoff = Backoff(FIRST_PAUSE_S, MAX_PAUSE_S)
        give_up_s = clock.monotonic_s() + CONNECT_TIMEOUT_S
        while clock.monotonic_s() < give_up_s:
            connection = addresses.connect(master_pid)
            if connection is not None:
                return connection
            if stop.wait(backoff.fail()):
                return None
        logger.debug("No reaper of process %d was found.", master_pid)
        self._is_without_reaper = True
        return None

    def _register(self, connection: socket.socket, stop: threading.Event) -> bool:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        connection.settimeout(SEND_TIMEOUT_S)
        with self._lock:
            if stop.is_set():
                return False
            known = [Joined(slot, *membership) for slot, membership in self._memberships.items()]
            messages: list[WorkerMessage] = [self._introduce(), *known, *self._limited.values()]
            try:
                connection.sendall(b"".join(map(encode, messages)))
            except OSError as e:
                logger.warning("This worker could not register with its reaper: %s.", e)
                return False
            connection.settimeout(None)
            self._connection = connection
            self._is_without_reaper = False
        logger.debug("Process %d has registered with the reaper of its command.", os.getpid())
        return True

    def notice_end(self) -> None:
        """Log the end of the reaper, once. A thread of the worker calls this repeatedly: it does not wait."""
        with self._lock:
            if self._connection is None or not _has_ended(self._connection):
                return
            self._connection.close()
            self._connection = None
            self._is_without_reaper = True
        logger.warning(
            "The reaper of this command has ended. Until the command is restarted, the partitions of a "
            "killed worker move only after the session timeout."
        )

    def _send(self, message: WorkerMessage) -> None:
        with self._lock:
            self._send_locked(message)

    def _send_locked(self, message: WorkerMessage) -> None:
        """Send a message if there is a connection. A reaper that does not read loses this worker."""
        if self._connection is None:
            return
        line = encode(message)
        try:
            is_sent = self._connection.send(line, socket.MSG_DONTWAIT) == len(line)
        except OSError as e:
            is_sent = False
            logger.debug("The reaper could not be told of a membership: %r", e)
        if not is_sent:
            logger.warning("The reaper of this command does not answer; this worker ends its registration.")
            self._connection.close()
            self._connection = None
            self._is_without_reaper = True


def _has_ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_DONTWAIT)  # a reaper sends nothing
    except BlockingIOError:
        return False
    except OSError:
        return True
