"""Delayed messages: they wait in one compacted Kafka topic, and each worker process runs a forwarder that
moves due messages into their queues.

The rest of the broker uses one class of this package, :class:`Delays`.
"""

from ..process.sqlite_cache import CacheUnusable
from .cancellation import CancelUndecided
from .delays import Delays
from .forwarder import Forwarder
from .record_format import MAX_DELAY_MS, Outcome, delay_record
from .view import Cancellation, DelayedMessage, Pending

__all__ = [
    "MAX_DELAY_MS",
    "CacheUnusable",
    "CancelUndecided",
    "Cancellation",
    "DelayedMessage",
    "Delays",
    "Forwarder",
    "Outcome",
    "Pending",
    "delay_record",
]
