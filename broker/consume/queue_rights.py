"""Logs the rights that a queue's consumer lacks. The consumer continues, and works once they are granted."""

from __future__ import annotations

from ..errors import NotAuthorized
from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.rights import Denials, Rights, reading


class QueueRights:
    """The rights that one queue's consumer needs.

    Attributes:
      needed: The rights to read the queue and to be a member of its group.
    """

    def __init__(
        self, clients: Clients, denials: Denials, *, queue_name: str, topic: str, group: str
    ) -> None:
        self.needed = reading(topic, group=group)
        self._clients = clients
        self._denials = denials
        self._doing = f"The queue {queue_name!r} cannot be consumed"
        self._unflushed = f"Flushed messages of the queue {queue_name!r} may still run"
        self._flush_markers = Rights(group=f"{group}.flushed", on_group="DESCRIBE")
        self._holding = f"The keyed messages of the queue {queue_name!r} are held"

    def note_denial(self, error: KafkaError | NotAuthorized) -> None:
        """Log the missing right that an error of Kafka is about."""
        if isinstance(error, KafkaError):
            self._denials.note(self._doing, self._clients.translated(error, self._doing, self.needed))
        else:
            self._denials.note(self._doing, error)

    def note_lanes_denial(self, error: NotAuthorized) -> None:
        """Log the missing right to the lanes topic."""
        self._denials.note(self._holding, error)

    def note_lanes_granted(self) -> None:
        """Note that the lanes topic can be used."""
        self._denials.is_over(self._holding)

    def note_flush_denial(self, error: KafkaError) -> None:
        """Log the missing right to read the flush markers."""
        self._denials.note(
            self._unflushed, self._clients.translated(error, self._unflushed, self._flush_markers)
        )

    def note_flush_granted(self) -> None:
        """Note that the flush markers can be read."""
        self._denials.is_over(self._unflushed)

    def note_granted(self) -> None:
        """Note that the queue can be consumed."""
        self._denials.is_over(self._doing)
