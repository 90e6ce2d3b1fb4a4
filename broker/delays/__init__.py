"""Delayed messages: they wait in one compacted Kafka topic, and a forwarder in each worker process brings
them out.

Kept apart from the rest of the broker, which sees one class, :class:`Delays`.
"""

from .cancellation import CancelUndecided
from .delays import Delays
from .forwarder import Forwarder
from .index_store import IndexUnusable
from .record_format import MAX_DELAY_MS, Outcome, delay_record
from .view import DelayedMessage, Pending

__all__ = [
    "MAX_DELAY_MS",
    "CancelUndecided",
    "DelayedMessage",
    "Delays",
    "Forwarder",
    "IndexUnusable",
    "Outcome",
    "Pending",
    "delay_record",
]
