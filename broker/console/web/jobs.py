"""Redrives and discards that run in the background, with their progress."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from ...process import clock
from ..session import EXPECTED
from .audit import Audit

logger = logging.getLogger(__name__)

#: The finished ones beyond it are forgotten; the audit keeps them.
MAX_REMEMBERED = 100
#: So many run at once. More wait.
WORKERS = 2


@dataclass(slots=True)
class Job:
    """A redrive or a discard.

    Attributes:
      subject: The dead letters in words.
      total: The number that was confirmed.
      done: The number that was handled so far.
      state: waiting, running, done or failed.
      outcome: What became of it, in one sentence.
    """

    id: str
    who: str
    action: str
    subject: str
    reason: str
    total: int
    done: int = 0
    state: str = "waiting"
    outcome: str = ""
    began_ms: int = field(default_factory=lambda: clock.wall_ms())
    ended_ms: int | None = None


#: Does the work: gets a function to call with the number that is done, and returns the outcome.
Work = Callable[[Callable[[int], None]], str]


class Jobs:
    """Runs them, and remembers the last ones.

    Parameters:
      on_end: Called after each.
    """

    def __init__(self, audit: Audit, on_end: Callable[[], None]) -> None:
        self._audit = audit
        self._on_end = on_end
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._executor = ThreadPoolExecutor(WORKERS, "console-jobs")

    def start(self, who: str, action: str, subject: str, reason: str, total: int, work: Work) -> Job:
        """Note the beginning in the audit, and begin.

        Raises:
          OSError: When the audit cannot be written. Nothing has begun.
        """
        job = Job(secrets.token_hex(8), who, action, subject, reason, total)
        self._audit.note(who, action, subject, why=reason, outcome=f"begun: {total:,}")
        with self._lock:
            self._jobs[job.id] = job
            for old in [one for one in self._jobs.values() if one.ended_ms is not None][:-MAX_REMEMBERED]:
                del self._jobs[old.id]
        self._executor.submit(self._run, job, work)
        return job

    def _run(self, job: Job, work: Work) -> None:
        job.state = "running"

        def progress(done: int) -> None:
            job.done = done

        try:
            job.outcome = work(progress)
            job.state = "done"
        except EXPECTED as e:
            job.outcome, job.state = str(e), "failed"
        except Exception as e:
            logger.exception("A %s has failed", job.action)
            job.outcome, job.state = f"a defect of the console: {e!r}", "failed"
        job.ended_ms = clock.wall_ms()
        self._audit.note(
            job.who, job.action, job.subject, why=job.reason, outcome=f"{job.state}: {job.outcome}"
        )
        self._on_end()

    def get(self, id_: str) -> Mapping[str, Any] | None:
        """The fields of one; None when it is unknown or forgotten."""
        job = self._jobs.get(id_)
        return None if job is None else asdict(job)

    def wait(self) -> None:
        """Wait for all, and take no more."""
        self._executor.shutdown(wait=True)
