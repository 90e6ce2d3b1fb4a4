"""The generations of a message: the first, and one more for each redrive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from dramatiq.errors import DecodeError
from dramatiq.message import Message

from ..expiry import EXPIRES_AT, renewed_expiry
from ..partition_keys import with_key_headers
from ..partition_keys.record_format import REQUEUE_HEADERS_BYTES
from ..process import clock
from ..produce.record import Record
from .dead_letter import REDRIVES, DeadLetter
from .record_format import carried
from .resolution import MAX_ID_CHARS, Resolution
from .topic_log import DeadLetterTopic

#: The options that belong to one generation of a message, and that its next one does not inherit.
_OPTIONS_OF_GENERATION = frozenset(
    {"retries", "traceback", "requeue_timestamp", "last_error", "idle_for_s", "eta"}
)

#: A message id and its number of redrives.
Generation = tuple[str, int]


def next_generation(dead_letter: DeadLetter) -> Generation:
    assert dead_letter.message is not None
    return dead_letter.message.message_id, dead_letter.generation + 1


def renewed(message: Message[Any], **options: Any) -> Message[Any]:
    """A message as it is sent again: same id, no attempts yet, and ``message_timestamp`` is now. One that
    expires has as much time again.

    Parameters:
      options: Further options.
    """
    kept = {name: value for name, value in message.options.items() if name not in _OPTIONS_OF_GENERATION}
    if EXPIRES_AT in kept:
        kept[EXPIRES_AT] = renewed_expiry(kept, message.message_timestamp)
    kept.setdefault("first_sent_timestamp", message.message_timestamp)
    again: Message[Any] = replace(message, options=kept | options, message_timestamp=clock.wall_ms())
    return again


def redriven(dead_letter: DeadLetter, topic: str) -> Record:
    """The record that puts a dead letter's message back on its queue: same id and headers, new generation."""
    message = dead_letter.message
    assert message is not None
    _, generation = next_generation(dead_letter)
    again = renewed(message, **{REDRIVES: generation})
    key, headers = with_key_headers(again, carried(dead_letter.headers), is_again=True)
    reserved_bytes = 0 if key is None else REQUEUE_HEADERS_BYTES
    return Record(topic, again.encode(), key=key, headers=headers, reserved_bytes=reserved_bytes)


def generations_sent(queue: DeadLetterTopic, begun: Iterable[Resolution]) -> set[Generation]:
    """The generations on the queue, of the messages that interrupted resolutions may have sent."""
    wanted: set[str] = set()
    starts: dict[int, int] = {}
    for resolution in begun:
        wanted.update(resolution.dead_letters.values())
        for partition, end in resolution.queue_ends.items():
            starts[partition] = min(end, starts.get(partition, end))
    if not wanted:
        return set()
    found = (_generation_of(record.value) for record in queue.records_since(starts))
    return {
        generation
        for generation in found
        if generation is not None and generation[0][:MAX_ID_CHARS] in wanted
    }


def _generation_of(value: bytes | None) -> Generation | None:
    try:
        message: Message[Any] = Message.decode(value or b"")
        return str(message.message_id), int(message.options.get(REDRIVES, 0))
    except (DecodeError, AttributeError, TypeError, ValueError):
        return None  # not a message: the consumer dead-letters the record
