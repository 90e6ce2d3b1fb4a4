"""Reads the workers' reports. Any process may; no worker is asked."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.rights import reading
from ..kafka.topic_reader import records_since
from ..kafka.types import ConsumedRecord
from ..process import clock
from ..reaper.death_note import DeathNote
from ..reaper.kill_note import KillNote
from .report import UnknownVersion, UnreadableReport, decode
from .worker_states import LastRecord, WorkerInfo, judge

logger = logging.getLogger(__name__)

STALL_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_MS = 10_000


class WorkerReader:
    """Reads the last records of the workers of a namespace.

    Parameters:
      topic: The topic of reports. It need not exist.
    """

    def __init__(self, clients: Clients, topic: str) -> None:
        self._clients = clients
        self._topic = topic
        self._said: set[str] = set()

    def read(self, within_s: float) -> list[WorkerInfo]:
        """The workers with a record of the last ``within_s`` seconds, by host and process.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the reports.
        """
        doing = f"The reports in {self._topic!r} could not be read"
        last = self._clients.ask(lambda: self._last_records(within_s), doing, rights=reading(self._topic))
        # Another host's clock may be ahead of this one's: no record is of the future.
        now_ms = max([clock.wall_ms(), *(record.written_ms for record in last.values())])
        members = _Members(self._clients)
        found = [judge(record, now_ms, members.of) for record in last.values()]
        return sorted(found, key=lambda worker: worker.worker_id)

    def _last_records(self, within_s: float) -> dict[str, LastRecord]:
        last = {record.key: record for record in self._records(within_s) if record.key is not None}
        found: dict[str, LastRecord] = {}
        # In the order of the topic's one partition: a death note follows the last report.
        for record in sorted(last.values(), key=lambda record: record.offset):
            self._take(record, found)
        return found

    def _take(self, record: ConsumedRecord, found: dict[str, LastRecord]) -> None:
        if record.value is None or KillNote.decode(record.value) is not None:
            return
        try:
            content = decode(record.value)
        except UnreadableReport as e:
            self._say(e)
            return
        worker_id = content.worker_id
        before = found.get(worker_id)
        if isinstance(content, DeathNote):
            report = None if before is None else before.report
        else:
            report = content
        written_ms = record.timestamp if record.timestamp > 0 else content.at_ms
        found[worker_id] = LastRecord(content, written_ms, report)

    def _say(self, error: UnreadableReport) -> None:
        """Log once that there are records that this version cannot read."""
        text = str(error) if isinstance(error, UnknownVersion) else type(error).__name__
        if text not in self._said:
            self._said.add(text)
            logger.warning("A record of the topic %r is skipped: %s", self._topic, error)

    def _records(self, within_s: float) -> Iterator[ConsumedRecord]:
        return records_since(
            self._clients,
            self._topic,
            clock.wall_ms() - int(within_s * 1000),
            stall_timeout_s=STALL_TIMEOUT_S,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )


class _Members:
    """The members of consumer groups, which are looked up when a worker is silent."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._known: dict[str, Collection[str] | None] = {}

    def of(self, group: str) -> Collection[str] | None:
        if group not in self._known:
            self._known[group] = self._look_up(group)
        return self._known[group]

    def _look_up(self, group: str) -> Collection[str] | None:
        try:
            return self._clients.ask(lambda: self._ask(group), f"The members of {group!r} could not be read")
        except BrokerConnectionError as e:
            logger.info("%s", e)
            return None

    def _ask(self, group: str) -> Collection[str]:
        with self._clients.admin() as admin:
            return set(admin.group_members(group))
