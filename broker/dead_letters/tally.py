"""Counts the dead letters of a queue that are neither redriven nor discarded, by the type of their error.

The first count reads all of them. A later one reads the records that were written since: a count that is
repeated, as by a metrics exporter, costs as much as there is news. A tally needs one byte for each record of
the dead-letter topic.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterable

from ..kafka.types import ConsumedRecord
from .resolution import ResolutionState, is_resolution, read_resolution
from .topic_log import DeadLetterTopic

#: The number of error types that are counted by name, so that a byte can hold their numbers.
MAX_ERROR_TYPES = 250
#: The name that stands for the others.
OTHERS = "(others)"
_KEY = b'"error_type":"'
#: A text of JSON that was written without control characters, as Python writes it.
_TEXT = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\.)*"')


class DeadLetterTally:
    """The dead letters of one queue. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._topic_id: object = None
        self._partitions: dict[int, _Partition] = {}
        self._types: dict[str, int] = {}

    def count(self, log: DeadLetterTopic) -> dict[str, int]:
        """The number of present dead letters of each error type.

        Parameters:
          log: The queue's dead-letter topic.

        Raises:
          ValueError: When a resolution is damaged, or of a later version.
          KafkaUnavailable, NotAuthorized: As the methods of ``log``.
        """
        with self._lock:
            if log.topic_id != self._topic_id:
                self._partitions.clear()
                self._topic_id = log.topic_id
            for number, end in log.ends.items():
                partition = self._partitions.setdefault(number, _Partition(number))
                partition.fit(log.beginnings[number], end)
                partition.add(log.records(number, partition.end), self._types)
            counts: Counter[int] = sum((p.counts for p in self._partitions.values()), Counter())
            return {name: counts[kind] for name, kind in self._types.items() if counts[kind]}


class _Partition:
    """A partition of the topic.

    Attributes:
      begin: The offset of the first record in ``kinds``.
      kinds: For each record, the number of its error type; 0 for one that is no dead letter, or resolved.
      counts: The number of records of each kind but 0.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self.begin = 0
        self.kinds = bytearray()
        self.counts: Counter[int] = Counter()

    @property
    def end(self) -> int:
        """The offset of the next record to be read."""
        return self.begin + len(self.kinds)

    def fit(self, begin: int, end: int) -> None:
        """Forget the records that Kafka has deleted."""
        if end < self.end:  # the log was truncated
            self.begin, self.kinds, self.counts = begin, bytearray(), Counter()
        for kind in self.kinds[: max(0, begin - self.begin)]:
            self.counts[kind] -= 1
        del self.kinds[: max(0, begin - self.begin)]
        self.begin = max(self.begin, begin)

    def add(self, records: Iterable[ConsumedRecord], types: dict[str, int]) -> None:
        """Take records in, in the order of their offsets."""
        for record in records:
            self.kinds.extend(bytes(record.offset - self.end))
            if not is_resolution(record.headers):
                kind = _kind_of(error_type_of(record.value or b""), types)
                self.kinds.append(kind)
                self.counts[kind] += 1
                continue
            resolution = read_resolution(record.value, self._number)
            self.kinds.append(0)
            if resolution.state is ResolutionState.DONE:
                for offset in resolution.dead_letters:
                    self._resolve(offset - self.begin)

    def _resolve(self, index: int) -> None:
        if 0 <= index < len(self.kinds) and self.kinds[index]:
            self.counts[self.kinds[index]] -= 1
            self.kinds[index] = 0


def _kind_of(error_type: str, types: dict[str, int]) -> int:
    if error_type not in types and len(types) >= MAX_ERROR_TYPES:
        error_type = OTHERS
    return types.setdefault(error_type, len(types) + 1)


def error_type_of(value: bytes) -> str:
    """The error type of a dead letter; empty when it has none.

    The value is not decoded, which takes as long as the message is large. In JSON, no text contains the key
    with its quotes unescaped, and the original message, which may have such a key, is before it.
    """
    at = value.rfind(_KEY)
    if at < 0:
        return ""
    text = _TEXT.match(value, at + len(_KEY) - 1)
    try:
        return "" if text is None else str(json.loads(text[0]))
    except ValueError:  # the record is not this broker's
        return ""
