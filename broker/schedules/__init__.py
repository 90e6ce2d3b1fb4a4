"""Schedules: one compacted Kafka topic has them, and one worker process at a time enqueues their occurrences.

The rest of the broker uses :class:`Schedules`, :class:`Scheduler` and the timings.
"""

from .firing import Firings
from .queue_ends import QueueEnds
from .scheduler import Scheduler
from .schedules import Schedule, Schedules, check_timing
from .timing import Cron, Every, Timing

__all__ = [
    "Cron",
    "Every",
    "Firings",
    "QueueEnds",
    "Schedule",
    "Scheduler",
    "Schedules",
    "Timing",
    "check_timing",
]
