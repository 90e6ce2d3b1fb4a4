"""Reads from the reports of workers whether they have applied a command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.types import GroupMember
from ..reports.report import WorkerReport
from ..reports.worker_list import WorkerReader
from ..reports.worker_states import WorkerState

logger = logging.getLogger(__name__)

#: The age of the oldest report that is read. A worker that was frozen for longer has no lease any more.
REPORTS_WITHIN_S = 3600.0
REQUEST_TIMEOUT_MS = 5_000


@dataclass(frozen=True, slots=True)
class QueueWorkers:
    """The workers of a queue, as their reports and the queue's consumer group show them.

    Attributes:
      living: The reports of the queue's workers that have not ended, frozen ones included; None when this
        client cannot read them.
      unreported: The members of the queue's consumer group that are in no report: workers of an earlier
        version, those without reports, and for a moment those that have just joined. None when this client
        cannot read the members or the reports.
    """

    living: Sequence[WorkerReport] | None
    unreported: Sequence[GroupMember] | None


class Confirmations:
    """The latest reports of the workers.

    Parameters:
      group_of: Returns the consumer group of a queue.
    """

    def __init__(self, clients: Clients, workers: WorkerReader, group_of: Callable[[str], str]) -> None:
        self._clients = clients
        self._workers = workers
        self._group_of = group_of

    def of(self, queue_name: str) -> QueueWorkers:
        """The workers of a queue."""
        group = self._group_of(queue_name)
        try:
            found = self._workers.read(REPORTS_WITHIN_S)
        except BrokerConnectionError as e:
            logger.info("No worker's confirmation of a command can be read: %s", e)
            return QueueWorkers(None, None)
        # After the reports, so that a worker that joins in between is not overlooked.
        members = self._members(group)
        # Kafka keeps the member of a killed worker until its session timeout.
        known = {worker.report.members.get(group) for worker in found if worker.report is not None}
        living = [
            worker.report
            for worker in found
            if worker.report is not None
            and worker.state is not WorkerState.GONE
            and queue_name in worker.report.queues
        ]
        if members is None:
            return QueueWorkers(living, None)
        return QueueWorkers(living, [member for member in members if member.member_id not in known])

    def _members(self, group: str) -> Sequence[GroupMember] | None:
        def ask() -> Sequence[GroupMember]:
            with self._clients.admin(request_timeout_ms=REQUEST_TIMEOUT_MS) as admin:
                return admin.described_members(group)

        try:
            return self._clients.ask(ask, f"The members of {group!r} could not be read")
        except BrokerConnectionError as e:
            logger.info("%s", e)
            return None
