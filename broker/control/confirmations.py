"""Reads from the reports of workers whether they have applied a command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..reports.report import WorkerReport
from ..reports.worker_list import WorkerReader
from ..reports.worker_states import WorkerInfo, WorkerState

logger = logging.getLogger(__name__)

#: The age of the oldest report that is read. A worker that was frozen for longer has no lease any more.
REPORTS_WITHIN_S = 3600.0
REQUEST_TIMEOUT_MS = 5_000


class Confirmations:
    """The latest reports of the workers.

    Parameters:
      group_of: Returns the consumer group of a queue.
    """

    def __init__(self, clients: Clients, workers: WorkerReader, group_of: Callable[[str], str]) -> None:
        self._clients = clients
        self._workers = workers
        self._group_of = group_of

    def living(self) -> list[WorkerReport] | None:
        """The reports of all workers that have not ended, frozen ones included; None when this client cannot
        read them.
        """
        try:
            found = self._workers.read(REPORTS_WITHIN_S)
        except BrokerConnectionError as e:
            logger.info("No worker's confirmation of a command can be read: %s", e)
            return None
        return list(_reports(found))

    def is_complete_for(self, queue_name: str, reports: Iterable[WorkerReport]) -> bool:
        """Whether every member of the queue's consumer group is one of ``reports``.

        A worker of an earlier version, or one that may not write reports, is not. False when Kafka does not
        tell the members.
        """
        group = self._group_of(queue_name)

        def ask() -> set[str]:
            with self._clients.admin(request_timeout_ms=REQUEST_TIMEOUT_MS) as admin:
                return set(admin.group_members(group))

        try:
            members = self._clients.ask(ask, f"The members of {group!r} could not be read")
        except BrokerConnectionError as e:
            logger.info("%s", e)
            return False
        return members <= {report.members.get(group) for report in reports}


def _reports(workers: Iterable[WorkerInfo]) -> Iterable[WorkerReport]:
    for worker in workers:
        if worker.state is not WorkerState.GONE and worker.report is not None:
            yield worker.report
