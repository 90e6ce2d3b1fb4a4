"""The counters of an actor's runs since the boot of the worker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .histogram import BUCKET_COUNT, EMPTY, Histogram

#: The number of error types of an actor that are counted by name.
MAX_ERROR_TYPES = 50
#: The name that stands for the error types, or the actors, beyond a limit.
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class ActorCounters:
    """The runs of one actor in one worker, since its boot.

    Attributes:
      started: The runs that began. Those that have not ended are in it.
      succeeded: The runs that ended without an error.
      failed: The runs that ended with an error, by the name of the error's class.
      retried: The failed runs after which the message is tried again.
      dead_lettered: The messages that became dead letters, also without a run.
      dead_letter_errors: The same by the name of the error's class; an empty name for those without an error.
      skipped: The messages that a middleware skipped.
      interrupted: The runs that were ended from outside and count no attempt, as by a shutdown.
      run_time: The durations of the runs.
      queue_time: The times from a record's append to its topic until its run began.
      queue_name: The queue of its first message; empty in a report of a version that does not tell it.
    """

    started: int = 0
    succeeded: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    retried: int = 0
    dead_lettered: int = 0
    skipped: int = 0
    interrupted: int = 0
    run_time: Histogram = EMPTY
    queue_time: Histogram = EMPTY
    dead_letter_errors: dict[str, int] = field(default_factory=dict)
    queue_name: str = ""

    def __add__(self, other: ActorCounters) -> ActorCounters:
        return ActorCounters(
            self.started + other.started,
            self.succeeded + other.succeeded,
            dict(Counter(self.failed) + Counter(other.failed)),
            self.retried + other.retried,
            self.dead_lettered + other.dead_lettered,
            self.skipped + other.skipped,
            self.interrupted + other.interrupted,
            self.run_time + other.run_time,
            self.queue_time + other.queue_time,
            dict(Counter(self.dead_letter_errors) + Counter(other.dead_letter_errors)),
            self.queue_name or other.queue_name,
        )


class ThreadCounters:
    """The runs of one actor that one thread has ended. Only that thread changes it; others may read it.

    The attributes are those of ActorCounters. The histograms are lists of all buckets.
    """

    __slots__ = (
        "dead_letter_errors", "dead_lettered", "failed", "interrupted", "queue_name", "queue_s",
        "queue_slots", "retried", "run_s", "run_slots", "skipped", "succeeded", "unrecorded",
    )  # fmt: skip

    def __init__(self, queue_name: str) -> None:
        self.queue_name = queue_name
        self.succeeded = self.retried = self.dead_lettered = self.skipped = self.interrupted = 0
        #: The successes of which the history has no event.
        self.unrecorded = 0
        self.failed: dict[str, int] = {}
        self.dead_letter_errors: dict[str, int] = {}
        self.run_slots = [0] * BUCKET_COUNT
        self.queue_slots = [0] * BUCKET_COUNT
        self.run_s = self.queue_s = 0.0

    def note_error(self, error_type: str) -> None:
        _add(self.failed, error_type)

    def note_dead_letter(self, error: BaseException | None) -> None:
        self.dead_lettered += 1
        _add(self.dead_letter_errors, "" if error is None else type(error).__name__)

    def read(self) -> ActorCounters:
        """The present counters. The thread may change one of them meanwhile."""
        run_time = Histogram.of_slots(self.run_slots[:], self.run_s)
        return ActorCounters(
            started=run_time.count,
            succeeded=self.succeeded,
            failed=self.failed.copy(),
            retried=self.retried,
            dead_lettered=self.dead_lettered,
            skipped=self.skipped,
            interrupted=self.interrupted,
            run_time=run_time,
            queue_time=Histogram.of_slots(self.queue_slots[:], self.queue_s),
            dead_letter_errors=self.dead_letter_errors.copy(),
            queue_name=self.queue_name,
        )


def _add(counts: dict[str, int], error_type: str) -> None:
    if error_type not in counts and len(counts) >= MAX_ERROR_TYPES:
        error_type = OTHERS
    counts[error_type] = counts.get(error_type, 0) + 1
