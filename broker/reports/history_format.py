"""The records of the topic ``{namespace}dramatiq_history``: batches of events, column by column.

A column compresses better than the same field of each event, and costs less to encode. Names occur once in a
batch, and columns refer to them by their index. Rare fields are objects by the index of the event. The value
is packed (see ``payload``); ``docs/reports.md`` documents the fields for other programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .history_event import HistoryEvent
from .payload import UnreadablePayload, pack, unpack

VERSION = 1
#: The events of one record.
MAX_BATCH = 1_000
COLUMNS = ("kind", "message_id", "actor", "queue", "attempt", "at_ms", "run_us", "queue_ms")


class UnreadableBatch(ValueError):
    """A value that is no batch of this version, or damaged."""


class _Names:
    """The names of one kind in a batch, each with its index."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}

    def index(self, name: str) -> int:
        return self._index.setdefault(name, len(self._index))

    def all(self) -> list[str]:
        return list(self._index)


def encode_batch(
    worker_id: str, events: Sequence[HistoryEvent], *, unrecorded: Mapping[str, int], dropped: int
) -> bytes:
    """The value of a batch's record.

    Parameters:
      events: All of them of ``worker_id``.
      unrecorded: The successes of each actor since the last batch that have no event.
      dropped: The events since the last batch that were lost.
    """
    kinds, actors, queues, error_types = _Names(), _Names(), _Names(), _Names()
    base_ms = min((event.at_ms for event in events), default=0)
    errors = {
        index: [error_types.index(event.error_type), event.error]
        for index, event in enumerate(events)
        if event.error_type is not None
    }
    retries = {i: event.retry_at_ms for i, event in enumerate(events) if event.retry_at_ms is not None}
    columns = {
        "kind": [kinds.index(event.kind) for event in events],
        "message_id": [event.message_id for event in events],
        "actor": [actors.index(event.actor_name) for event in events],
        "queue": [queues.index(event.queue_name) for event in events],
        "attempt": [event.attempt for event in events],
        "at_ms": [event.at_ms - base_ms for event in events],
        "run_us": [None if event.run_s is None else round(event.run_s * 1e6) for event in events],
        "queue_ms": [None if event.queue_s is None else round(event.queue_s * 1e3) for event in events],
    }
    return pack(
        {
            "v": VERSION,
            "worker": worker_id,
            "count": len(events),
            "base_ms": base_ms,
            "kinds": kinds.all(),
            "actors": actors.all(),
            "queues": queues.all(),
            "error_types": error_types.all(),
            "columns": columns,
            "errors": errors,
            "retry_at_ms": retries,
            "unrecorded": unrecorded,
            "dropped": dropped,
        }
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was read. Events are made of its columns on demand.

    Attributes:
      worker_id: The worker that wrote it.
      count: The number of its events.
      unrecorded: See ``encode_batch``.
      dropped: See ``encode_batch``.
    """

    worker_id: str
    count: int
    unrecorded: Mapping[str, int]
    dropped: int
    _body: Mapping[str, Any]

    def select(
        self, *, message_id: str | None, actor: str | None, error_type: str | None, since_ms: int
    ) -> Iterator[HistoryEvent]:
        """The events that match all given conditions, in the order of the batch."""
        columns, body = self._body["columns"], self._body
        indices: Sequence[int] = range(self.count)
        if error_type is not None:
            types, errors = body["error_types"], body["errors"]
            indices = sorted(int(i) for i, (number, _) in errors.items() if types[number] == error_type)
        if message_id is not None:
            ids = columns["message_id"]
            indices = [index for index in indices if ids[index] == message_id]
        if actor is not None:
            numbers, names = columns["actor"], body["actors"]
            indices = [index for index in indices if names[numbers[index]] == actor]
        for index in indices:
            event = self.event(index)
            if event.at_ms >= since_ms:
                yield event

    def event(self, index: int) -> HistoryEvent:
        """One event."""
        body, columns = self._body, self._body["columns"]
        run_us, queue_ms = columns["run_us"][index], columns["queue_ms"][index]
        error_type, error = None, None
        if (found := body["errors"].get(str(index))) is not None:
            error_type, error = str(body["error_types"][found[0]]), str(found[1])
        retry_at_ms = body["retry_at_ms"].get(str(index))
        return HistoryEvent(
            kind=str(body["kinds"][columns["kind"][index]]),
            message_id=str(columns["message_id"][index]),
            actor_name=str(body["actors"][columns["actor"][index]]),
            queue_name=str(body["queues"][columns["queue"][index]]),
            attempt=int(columns["attempt"][index]),
            at_ms=int(body["base_ms"] + columns["at_ms"][index]),
            worker_id=self.worker_id,
            run_s=None if run_us is None else run_us / 1e6,
            queue_s=None if queue_ms is None else queue_ms / 1e3,
            error_type=error_type,
            error=error,
            retry_at_ms=None if retry_at_ms is None else int(retry_at_ms),
        )


def decode_batch(value: bytes) -> Batch:
    """Read a batch.

    Raises:
      UnreadableBatch: When it is anything else, or of a later version.
    """
    try:
        body = unpack(value)
    except UnreadablePayload as e:
        raise UnreadableBatch(str(e)) from e
    if body.get("v") != VERSION:
        raise UnreadableBatch(f"a batch of version {body.get('v')!r}; this broker reads version {VERSION}")
    try:
        batch = Batch(
            worker_id=str(body["worker"]),
            count=int(body["count"]),
            unrecorded={str(name): int(count) for name, count in body.get("unrecorded", {}).items()},
            dropped=int(body.get("dropped", 0)),
            _body={"errors": {}, "retry_at_ms": {}, "error_types": [], **body},
        )
        _check(batch, body["columns"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as e:
        raise UnreadableBatch(f"a field of a batch is missing or has another type: {e!r}") from e
    return batch


def _check(batch: Batch, columns: Mapping[str, Sequence[object]]) -> None:
    """Raise an error when an event could not be made of the columns."""
    if any(len(columns[name]) != batch.count for name in COLUMNS):
        raise ValueError("its columns have not one length")
    for index in range(batch.count):
        batch.event(index)
