"""What was done about dead letters: who, when, what, why.

A *resolution* is a record in the dead-letter topic itself, in the partition of the dead letters it is about
and behind them, so that Kafka's retention never removes it before them. Its value is one JSON object:

    operation   the same for everything that one call did
    action      redrive or discard
    state       begun: what is named in it may have been sent; done: it is resolved
    by, reason  who, and why
    timestamp   when, in milliseconds since 1970
    letters     [{"offset": ..., "message_id": ...}, ...]: the dead letters, by their offset in this partition
    queue_ends  begun only: where the queue's partitions ended then, so that what was sent can be found
    behind it
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..produce.publisher import Record
from .record_format import as_json

#: A record with this header is a resolution; any other is a dead letter.
RESOLUTION = "dead-letter-resolution"
#: Ids in a resolution are cut there; nobody makes them that long on purpose.
MAX_ID_CHARS = 200


class Action(Enum):
    REDRIVE = "redrive"
    DISCARD = "discard"


class ResolutionState(Enum):
    BEGUN = "begun"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What one call did, or was about to do, about some dead letters of one partition.

    Attributes:
      operation: Names the call.
      by: Who called.
      reason: Why.
      timestamp: When, in milliseconds since 1970.
      partition: The partition of the dead-letter topic.
      letters: The message id of each dead letter, by its offset; empty for one without a readable message.
      queue_ends: Where the queue's partitions ended before a redrive sent anything, by partition.
    """

    operation: str
    action: Action
    state: ResolutionState
    by: str
    reason: str
    timestamp: int
    partition: int
    dead_letters: Mapping[int, str]
    queue_ends: Mapping[int, int] = field(default_factory=dict)

    def record(self, topic: str) -> Record:
        """This resolution as a record of the dead-letter topic."""
        value = {
            "operation": self.operation,
            "action": self.action.value,
            "state": self.state.value,
            "by": self.by,
            "reason": self.reason,
            "timestamp": self.timestamp,
            "letters": [{"offset": o, "message_id": m[:MAX_ID_CHARS]} for o, m in self.dead_letters.items()],
            "queue_ends": {str(partition): end for partition, end in self.queue_ends.items()},
        }
        return Record(topic, as_json(value), headers=[(RESOLUTION, b"1")], partition=self.partition)


def is_resolution(headers: Sequence[tuple[str, bytes]]) -> bool:
    return any(name == RESOLUTION for name, _ in headers)


def read_resolution(value: bytes | None, partition: int) -> Resolution:
    """Understand a resolution.

    Raises:
      ValueError: When it is damaged or of a later version. What it resolved is unknown then, so nothing may
        be guessed.
    """
    try:
        said: dict[str, Any] = json.loads(value or b"")
        return Resolution(
            operation=said["operation"],
            action=Action(said["action"]),
            state=ResolutionState(said["state"]),
            by=said["by"],
            reason=said["reason"],
            timestamp=said["timestamp"],
            partition=partition,
            dead_letters={
                dead_letter["offset"]: dead_letter["message_id"] for dead_letter in said["letters"]
            },
            queue_ends={int(p): end for p, end in said["queue_ends"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise ValueError(
            f"a resolution in partition {partition} is damaged or of a later version: {e!r}"
        ) from e


def now_ms() -> int:
    return time.time_ns() // 1_000_000
