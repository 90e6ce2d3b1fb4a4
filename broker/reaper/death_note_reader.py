"""The reaction of a living worker to a death note."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.rights import Rights
from ..kafka.types import Membership
from ..process import clock
from ..process.forks import reset_on_fork
from .death_note import DeathNote, command_name

logger = logging.getLogger(__name__)

#: The interval in which it is checked whether this process has joined a group of a dead worker.
JOIN_POLL_S = 0.03
#: The age of notes that a starting worker reads. Older ones name members that Kafka has removed itself.
READ_BACK_MS = 60_000


class DeathNoteReader:
    """Reacts to the death notes of this process's groups, so that it gets the partitions at once.

    Parameters:
      heartbeat_soon: Lets the consumers of these groups send heartbeats now. The answers tell them of the
        rebalance, which they would otherwise learn of at their next interval.
      memberships: The memberships of this process.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        heartbeat_soon: Callable[[set[str]], object],
        memberships: Callable[[], set[Membership]],
    ) -> None:
        self._clients = clients
        self._heartbeat_soon = heartbeat_soon
        self._memberships = memberships
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Have no thread, and know of no dead worker: both belong to the parent."""
        self._begun_ms = clock.wall_ms()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._remaining: dict[Membership, int] = {}
        self._thread: threading.Thread | None = None

    def read(self, value: bytes | None) -> None:
        """Read the value of a record; one that is no death note is ignored. It does not wait."""
        note = DeathNote.decode(value)
        if note is not None:
            self.note(note)

    def note(self, note: DeathNote) -> None:
        """React to a death note. It does not wait."""
        if note.removed:
            self._heartbeat_soon({membership.group for membership in note.removed})
        if not note.remaining or note.expires_ms <= clock.wall_ms() or self._is_sibling(note):
            return
        with self._lock:
            self._remaining |= dict.fromkeys(note.remaining, note.expires_ms)
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="dramatiq-kafka-successor", daemon=True
                )
                self._thread.start()

    def _is_sibling(self, note: DeathNote) -> bool:
        """Whether this worker was one of the same command, which Dramatiq stops."""
        parent = multiprocessing.parent_process()
        if parent is None or parent.pid is None or self._begun_ms > note.at_ms:
            return False
        return note.command == command_name(parent.pid)

    def start(self) -> None:
        """Begin to work, also after a stop."""
        self._begun_ms = clock.wall_ms()
        self._stop.clear()

    def stop(self) -> None:
        """End the thread, if there is one, after its request."""
        self._stop.set()

    def _run(self) -> None:
        """Remove the remaining members of dead workers from each group that this process joins."""
        while not self._stop.is_set():
            with self._lock:
                now_ms = clock.wall_ms()
                self._remaining = {m: at_ms for m, at_ms in self._remaining.items() if at_ms > now_ms}
                if not self._remaining:
                    self._thread = None
                    return
                joined = {membership.group for membership in self._memberships()}
                candidates = {m for m in self._remaining if m.group in joined}
            if candidates and not self._remove(candidates):
                break
            self._stop.wait(JOIN_POLL_S)
        with self._lock:
            self._remaining.clear()
            self._thread = None

    def _remove(self, candidates: set[Membership]) -> bool:
        """Remove the candidates whose group has a member of this process; whether Kafka has answered."""
        try:
            removed = self._clients.ask(
                lambda: self._remove_where_joined(candidates),
                "The members of a dead worker could not be removed",
                unless=self._stop,
                rights=Rights(group=min(candidates).group),
            )
        except (KafkaError, BrokerConnectionError) as e:
            logger.warning("A dead worker's partitions move only after the session timeout: %s", e)
            return False
        with self._lock:
            for membership in removed:
                self._remaining.pop(membership, None)
        if removed:
            self._heartbeat_soon({membership.group for membership in removed})
        return True

    def _remove_where_joined(self, candidates: set[Membership]) -> set[Membership]:
        """Remove the candidates of the first groups that this process has joined, and return them."""
        with self._clients.admin() as admin:
            while not self._stop.is_set() and not all(map(self._is_over, candidates)):
                own = {membership.member_id for membership in self._memberships()}
                if ready := {c for c in candidates if own.intersection(admin.group_members(c.group))}:
                    admin.remove_members(ready)
                    return ready
                self._stop.wait(JOIN_POLL_S)
        return set()

    def _is_over(self, membership: Membership) -> bool:
        return self._remaining.get(membership, 0) <= clock.wall_ms()
