"""Resolutions: the history of redrives and discards.

A *resolution* is a record in the dead-letter topic. It is in the partition of its dead letters and after
them, so Kafka's retention never removes it before them. Its value is one JSON object:

    operation   the same for all resolutions of one call
    action      redrive or discard
    state       begun: the messages may have been sent; done: the dead letters are resolved
    by, reason  the author and the reason
    timestamp   the time, in milliseconds since 1970
    letters     [{"offset": ..., "message_id": ...}, ...]: the dead letters, by their offset in this partition
    queue_ends  begun only: the end offsets of the queue's partitions; sent messages are at or after them
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..errors import UnreadableResolution
from ..produce.record import Record
from .record_format import as_json

#: A record with this header is a resolution; any other is a dead letter.
RESOLUTION = "dead-letter-resolution"
#: Longer ids are truncated in a resolution; no application uses such ids on purpose.
MAX_ID_CHARS = 200


class Action(Enum):
    REDRIVE = "redrive"
    DISCARD = "discard"


class ResolutionState(Enum):
    BEGUN = "begun"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Resolution:
    """A step of one call about some dead letters of one partition.

    Attributes:
      operation: The name of the call.
      by: The author.
      reason: The reason.
      timestamp: The time, in milliseconds since 1970.
      partition: The partition of the dead-letter topic.
      dead_letters: The message id of each dead letter, by its offset; empty for one without a readable
        message.
      queue_ends: The end offsets of the queue's partitions before the redrive sent messages, by partition.
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
    """Decode a resolution.

    Raises:
      UnreadableResolution: When it is damaged or of a later version. The state of its dead letters is
        unknown then.
    """
    try:
        fields: dict[str, Any] = json.loads(value or b"")
        return Resolution(
            operation=fields["operation"],
            action=Action(fields["action"]),
            state=ResolutionState(fields["state"]),
            by=fields["by"],
            reason=fields["reason"],
            timestamp=fields["timestamp"],
            partition=partition,
            dead_letters={
                dead_letter["offset"]: dead_letter["message_id"] for dead_letter in fields["letters"]
            },
            queue_ends={int(p): end for p, end in fields["queue_ends"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UnreadableResolution(
            f"a resolution in partition {partition} is damaged or of a later version: {e!r}"
        ) from e
