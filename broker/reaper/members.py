"""Ends the memberships of dead workers, and writes their death notes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.protocol import AdminClient
from ..kafka.rights import Rights
from ..kafka.types import Membership, TopicPartition
from ..process import clock
from .dead_worker import DeadWorker
from .death_note import DeathNote
from .kill_note import KillNote
from .wire import Introduction, Limited, excess_of

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: The times in which Kafka must have removed the members, and have stored the notes. The command that ends
#: waits for its reaper.
REMOVAL_TIMEOUT_S = 5.0
NOTE_TIMEOUT_S = 2.0
#: The same for a kill note. The worker is killed after it, with or without the note.
KILL_NOTE_TIMEOUT_S = 5.0


class Removal:
    """Removes dead members from their groups.

    A group without another member that stays is left as it is: Kafka lets the first member of an empty group
    wait for ``group.initial.rebalance.delay.ms``, 3 s by default, but not the second member of a group. The
    other workers of the command do not stay: Dramatiq stops them when one has died. The death note names the
    members that remain, and a successor removes them once it has joined.

    Parameters:
      new_clients: Makes the clients of a worker's cluster.
    """

    def __init__(self, new_clients: Callable[[Introduction], Clients] | None = None) -> None:
        self._new_clients = new_clients or _clients_of
        #: Members that remain, with the time at which Kafka has removed them itself.
        self._remaining: dict[Membership, int] = {}

    def remove(self, dead: Sequence[DeadWorker]) -> None:
        """Remove the members of workers that died at the same time, and write their notes. Errors are
        logged.
        """
        by_cluster: dict[str, list[DeadWorker]] = {}
        for worker in dead:
            by_cluster.setdefault(_cluster_of(worker.introduction), []).append(worker)
        for workers in by_cluster.values():
            _log_deaths(workers)
            try:
                self._remove(self._new_clients(workers[0].introduction), workers)
            except (KafkaError, BrokerConnectionError) as e:
                logger.warning(
                    "The members of dead workers could not be removed; their partitions move after the "
                    "session timeout: %s",
                    e,
                )

    def _remove(self, clients: Clients, workers: list[DeadWorker]) -> None:
        self._forget_expired()
        memberships = {membership for worker in workers for membership in worker.memberships}
        self._remaining |= {m: w.expires_ms for w in workers for m in w.memberships}
        leaving = {membership for worker in workers for membership in worker.siblings}
        topics = {worker.introduction.notes_topic for worker in workers}
        can_note = self._ask(
            clients, memberships, lambda admin: self._remove_first(admin, memberships, leaving, topics)
        )
        if can_note and self._write_notes(clients, workers):
            return
        # No successor would know of the members that remain.
        if rest := memberships & self._remaining.keys():
            self._ask(clients, rest, lambda admin: self._remove_now(admin, rest))

    def announce(self, introduction: Introduction, limited: Limited) -> None:
        """Write the kill note of a worker that is about to be killed. An error is logged: the worker is
        killed all the same, and the cause of its end is searched as that of any crash.
        """
        note = KillNote(
            worker_id=introduction.worker_id,
            at_ms=clock.wall_ms(),
            group_id=limited.group_id,
            culprit=TopicPartition(limited.topic, limited.partition),
            offset=limited.offset,
            crashes=limited.crashes,
            partitions=frozenset(TopicPartition(*partition) for partition in limited.partitions),
            message_id=limited.message_id,
            actor_name=limited.actor_name,
            limit_ms=limited.limit_ms,
        )
        try:
            self._write(
                self._new_clients(introduction),
                [(introduction.notes_topic, note.key, note.encode())],
                KILL_NOTE_TIMEOUT_S,
            )
        except (KafkaError, BrokerConnectionError) as e:
            logger.warning("The note about the task %s could not be written: %s", limited.message_id, e)

    def _ask(self, clients: Clients, memberships: set[Membership], request: Callable[[AdminClient], T]) -> T:
        def ask() -> T:
            with clients.admin() as admin:
                return request(admin)

        return clients.ask(
            ask,
            "The members of a dead worker could not be removed",
            deadline_s=clock.monotonic_s() + REMOVAL_TIMEOUT_S,
            rights=Rights(group=min((membership.group for membership in memberships), default=None)),
        )

    def _remove_first(
        self,
        admin: AdminClient,
        memberships: set[Membership],
        leaving: set[Membership],
        notes_topics: set[str],
    ) -> bool:
        """Remove the members of groups that others stay in; return whether death notes can be written."""
        gone = {membership.member_id for membership in leaving | self._remaining.keys()}
        staying = {group: self._has_others(admin, group, gone) for group in {m.group for m in memberships}}
        self._remove_now(admin, {m for m in memberships if staying[m.group]})
        return all(found["error_code"] == 0 for found in admin.describe_topics(sorted(notes_topics)))

    def _remove_now(self, admin: AdminClient, memberships: set[Membership]) -> None:
        admin.remove_members(memberships)
        for membership in memberships:
            self._remaining.pop(membership, None)

    def _has_others(self, admin: AdminClient, group: str, gone: set[str]) -> bool:
        """Whether a group has a member that stays. An unknown answer counts as one."""
        members = set(admin.group_members(group))
        return not members or bool(members - gone)

    def _write_notes(self, clients: Clients, workers: list[DeadWorker]) -> bool:
        """Write the death notes; whether Kafka has all of them."""
        notes = [(worker.introduction.notes_topic, self._note(worker)) for worker in workers]
        try:
            records = [(topic, note.key, note.encode()) for topic, note in notes]
            self._write(clients, records, NOTE_TIMEOUT_S)
        except (KafkaError, BrokerConnectionError) as e:
            logger.warning("The death of a worker could not be noted; other workers notice it later: %s", e)
            return False
        return True

    def _write(self, clients: Clients, records: Iterable[tuple[str, bytes, bytes]], timeout_s: float) -> None:
        """Write records of topic, key and value, and wait until Kafka has them.

        Raises:
          KafkaError, BrokerConnectionError: When it has not acknowledged all of them in time.
        """
        timeout_ms = int(timeout_s * 1000)
        producer = clients.producer(
            within_s=timeout_s,
            acks="all",
            linger_ms=0,
            allow_auto_create_topics=False,
            max_block_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
            delivery_timeout_ms=timeout_ms,
        )
        try:
            sent = [producer.send(topic, value=value, key=key) for topic, key, value in records]
            for future in sent:
                future.get(timeout=timeout_s)
        finally:
            producer.force_close()

    def _note(self, worker: DeadWorker) -> DeathNote:
        remaining = frozenset(worker.memberships & self._remaining.keys())
        return DeathNote(
            worker.introduction.worker_id,
            worker.died_ms,
            signal=worker.exit.signal,
            exit_code=worker.exit.code,
            removed=frozenset(worker.memberships - remaining),
            remaining=remaining,
            expires_ms=worker.expires_ms,
            command=worker.command,
            culprit="" if worker.culprit is None else excess_of(worker.culprit),
        )

    def _forget_expired(self) -> None:
        now_ms = clock.wall_ms()
        self._remaining = {m: until_ms for m, until_ms in self._remaining.items() if until_ms > now_ms}


def _log_deaths(workers: Iterable[DeadWorker]) -> None:
    for worker in workers:
        logger.warning(
            "Worker %s has died (%s) as a member of %d groups; its partitions move now.",
            worker.introduction.worker_id,
            worker.exit,
            len({membership.group for membership in worker.memberships}),
        )


def _clients_of(introduction: Introduction) -> Clients:
    return Clients(introduction.bootstrap_servers, introduction.client_options)


def _cluster_of(introduction: Introduction) -> str:
    return json.dumps([introduction.bootstrap_servers, introduction.client_options], default=repr)
