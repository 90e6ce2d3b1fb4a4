"""Creates the records of enqueued messages, and puts them into the outbox of the current delivery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dramatiq.message import Message

from ..delays import Delays
from ..deliveries.delivery import Delivery
from ..error_text import NOTES, shorten_notes
from ..kafka.topics import Topics
from ..partition_keys import with_key_headers
from ..partition_keys.record_format import REQUEUE_HEADERS_BYTES
from ..produce.publisher import Publisher
from ..produce.record import Record

#: The maximum characters of a retry's traceback and error text, tried in order until the retry fits.
NOTES_CHARS = (2_000, 200, 0)


class Outgoing:
    """The records of messages.

    Parameters:
      is_declared: Whether a queue is declared. The name of a declared queue is valid.
    """

    def __init__(
        self, topics: Topics, delays: Delays, publisher: Publisher, *, is_declared: Callable[[str], bool]
    ) -> None:
        self._topics = topics
        self._delays = delays
        self._publisher = publisher
        self._is_declared = is_declared

    def record(self, message: Message[Any], delay: int | None) -> Record:
        """The record of a message in its queue's topic, or in the delayed topic.

        Raises:
          InvalidQueueName: When the queue's topics would have illegal names.
          TypeError, ValueError: When the delay is not a number, or out of its range.
        """
        if not self._is_declared(message.queue_name):
            self._topics.check_queue_name(message.queue_name)
        # A retry is enqueued as the delivery itself, whose headers it keeps.
        key, headers = with_key_headers(
            message, getattr(message, "headers", ()), is_retry=isinstance(message, Delivery)
        )
        if delay is not None:
            return self._delays.record(message, delay, headers=headers, key=key)
        reserved_bytes = 0 if key is None else REQUEUE_HEADERS_BYTES
        topic = self._topics.queue(message.queue_name)
        return Record(topic, message.encode(), key=key, headers=headers, reserved_bytes=reserved_bytes)

    def add_to_outbox(self, delivery: Delivery, message: Message[Any], delay: int | None) -> None:
        """Put a message into the outbox of the delivery from which it follows."""
        record = self.record(message, delay)
        if delivery.is_retry(message):
            delivery.drop_retry()  # two middlewares that retry would double it at every failure
            delivery.retry = record
        delivery.outbox.append(record)

    def make_fit(self, message: Message[Any], delay: int | None) -> dict[str, Any]:
        """Shorten the notes of a retry about its last failure if it is too large for its topic.

        Returns:
          The notes for the dead letter of a message that does not fit without them either.
        """
        notes = {name: message.options[name] for name in NOTES if name in message.options}
        for at_most in NOTES_CHARS:
            if self._publisher.seems_to_fit(self.record(message, delay)):
                return {}
            shorten_notes(message.options, at_most)
        return {} if self._publisher.seems_to_fit(self.record(message, delay)) else notes
