"""Reads the state that is exported, again and again, on one thread. A scrape reads nothing from Kafka."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dramatiq.errors import BrokerConnectionError

from .. import KafkaBroker, NotAuthorized, QueueState, Schedule, WorkerInfo
from ..process import clock
from .totals import Totals

logger = logging.getLogger(__name__)

#: The period whose reports are read: a worker that is cut off counts as gone after 60 s.
WITHIN_S = 120.0
#: After failed reads, the reports since the last success are read, up to this.
MAX_WITHIN_S = 3600.0
#: The sources of the state; each is read by itself.
QUEUES = "queues"
REPORTS = "reports"
SCHEDULES = "schedules"
#: The interval of reads of the schedules, whose topic is read as a whole.
SCHEDULES_EVERY_S = 60.0


@dataclass(slots=True)
class Source:
    """How the reads of a source went.

    Attributes:
      is_up: Whether the last one succeeded; None before the first has ended.
      read_at_s: The time of the last success (``clock.monotonic_s()``); that of the start before one.
      took_s: The duration of the last one, in seconds.
      failures: The number of failed ones.
      is_denied: Whether the last one failed because a right is missing.
      is_left_out: Whether this client may not read the source, and need not.
    """

    read_at_s: float
    is_up: bool | None = None
    took_s: float = 0.0
    failures: int = 0
    is_denied: bool = False
    is_left_out: bool = False
    _said: str = ""

    @property
    def age_s(self) -> float:
        """The age of the state, in seconds."""
        return clock.monotonic_s() - self.read_at_s

    def read(self, name: str, step: Callable[[], None]) -> None:
        """Run a read, and note its result. A failure that Kafka explains is logged once while it lasts."""
        began_s = clock.monotonic_s()
        try:
            step()
        except (BrokerConnectionError, ValueError) as e:
            self.is_up, self.failures = False, self.failures + 1
            self.is_denied = isinstance(e, NotAuthorized)
            if str(e) != self._said:
                logger.warning("The %s cannot be read, so their metrics keep the last values: %s", name, e)
            self._said = str(e)
        except Exception:
            # A fault of one read must not end the exporter, whose silence would look like health.
            self.is_up, self.failures = False, self.failures + 1
            logger.exception("The %s cannot be read, so their metrics keep the last values.", name)
        else:
            if self._said:
                logger.warning("The %s can be read again.", name)
            self._said = ""
            self.is_denied = False
            self.is_up, self.read_at_s = True, clock.monotonic_s()
        self.took_s = clock.monotonic_s() - began_s


class State:
    """The state of a namespace at the last read.

    Attributes:
      queues: The queues.
      workers: The workers with a recent report.
      schedules: The schedules.
      totals: The counters of all workers since the start.
      sources: How the reads went, by source.
    """

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        now_s = clock.monotonic_s()
        self.queues: Sequence[QueueState] = ()
        self.workers: Sequence[WorkerInfo] = ()
        self.schedules: Sequence[Schedule] = ()
        self.totals = Totals(clock.wall_ms())
        self.sources = {name: Source(now_s) for name in (QUEUES, REPORTS, SCHEDULES)}
        self._has_said_empty = False
        self._said_groups: dict[str, tuple[str, ...]] = {}

    def refresh(self) -> None:
        """Read everything again. It raises nothing that Kafka causes: ``sources`` has the result."""
        self.sources[QUEUES].read("queues", self._read_queues)
        self.sources[REPORTS].read("reports of the workers", self._read_workers)
        schedules = self.sources[SCHEDULES]
        if not schedules.is_up or schedules.age_s >= SCHEDULES_EVERY_S:
            schedules.read("schedules", self._read_schedules)

    def _read_queues(self) -> None:
        names = self._broker.queue_names()
        self.queues = self._broker.queues(*names) if names else ()
        if not names and not self._has_said_empty:
            logger.warning(
                "The namespace has no queue, so there are no metrics of queues: check its name; the first "
                "message or worker creates the topics of a queue."
            )
        self._has_said_empty = not names

    def _read_schedules(self) -> None:
        """Read the schedules. Without the right to their topic, which only applications with schedules have,
        they are left out; Kafka does not tell such a client whether there is one.
        """
        source = self.sources[SCHEDULES]
        try:
            self.schedules = self._broker.schedules.list()
        except NotAuthorized as e:
            if source.is_up and not source.is_left_out:
                raise
            if not source.is_left_out:
                logger.warning("The metrics of schedules are left out: %s", e)
            source.is_left_out = True
        else:
            source.is_left_out = False

    def _read_workers(self) -> None:
        within_s = min(max(WITHIN_S, self.sources[REPORTS].age_s + WITHIN_S / 2), MAX_WITHIN_S)
        self.workers = self._broker.workers(within_s=within_s)
        self.totals.add(self.workers, clock.monotonic_s())
        others = self._broker.other_groups(self.workers)
        if others and others != self._said_groups:
            groups = "; ".join(f"{queue}: {', '.join(ids)}" for queue, ids in others.items())
            logger.warning(
                "Workers have another group_id than the exporter (%s), so its metrics of these queues are "
                "wrong: name --group, DKB_GROUP, or group_id in the URL.",
                groups,
            )
        self._said_groups = others
