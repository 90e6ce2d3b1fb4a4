"""What the rest of the broker asks of delayed messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dramatiq.message import Message

from ..kafka.clients import Clients
from ..kafka.rights import not_published
from ..kafka.topics import Topics
from ..partition_keys.record_format import REQUEUE_HEADERS_BYTES
from ..produce.publisher import Publisher, Record
from .cancellation import Cancelling
from .delayed_topic import look_up
from .forwarder import Forwarder
from .forwarding import Forwarding, WriteDeadLetter
from .index_files import IndexFiles
from .record_format import Outcome, delay_record, flush_command
from .view import DelayView, Pending


class Delays:
    """The delayed messages of a namespace. Making one connects to nothing.

    Parameters:
      index_dir: Where this machine's indexes are kept; None for the user's cache directory.
      bury: Called with a due delay that its queue refuses for its size, and the error: it begins to keep the
        message in the dead letters. Without it the message is kept where it is.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        *,
        index_dir: str | Path | None = None,
        add_dead_letter: WriteDeadLetter | None = None,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self._files = IndexFiles(index_dir)
        self._bury = add_dead_letter
        self._cancelling = Cancelling(clients, topics, publisher)
        self._view = DelayView(clients, topics)

    def record(
        self,
        message: Message[Any],
        delay_ms: float,
        *,
        headers: Iterable[tuple[str, bytes]] = (),
        key: bytes | None = None,
    ) -> Record:
        """The record that keeps ``message`` until ``delay_ms`` from now. It asks Kafka nothing.

        Parameters:
          headers: What its record in the queue's topic is to have.
          key: The key of its record in the queue's topic.

        Raises:
          TypeError: When the delay is no number.
          ValueError: When the delay is negative, not finite, or longer than ten years.
        """
        return delay_record(
            self._topics.delayed,
            message,
            delay_ms,
            headers=headers,
            key=key,
            destination=self._topics.queue(message.queue_name),
            spare=0 if key is None else REQUEUE_HEADERS_BYTES,
        )

    def forwarder(self, settings: Mapping[str, Any] | None = None) -> Forwarder:
        """A forwarder for this process, not started. All of a namespace share the work.

        Parameters:
          settings: What kafka-python's consumer is given beside its own, such as ``session_timeout_ms``.
        """
        forwarding = Forwarding(self._topics, self._publisher, self._bury)
        return Forwarder(self._clients, self._topics, forwarding, self._files, settings or {})

    def count(self, queue: str) -> int:
        """How many messages wait for a queue.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.pending(queue, limit=0).count

    def pending(self, queue: str, *, limit: int = 100) -> Pending:
        """What waits for a queue: how many, when the next is due, and the first ``limit`` by due time.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self._view.pending(queue, limit=limit)

    def cancel(self, message_id: str, *, timeout_s: float = 10.0) -> Outcome:
        """Drop what waits of a message.

        Returns:
          CANCELLED: It waited and will not run. TOO_LATE: it is on its queue, or may be. UNKNOWN: nothing of
            that name waits, or has been forwarded lately.

        Raises:
          CancelUndecided: When no forwarder decided in time. The request stands; ``outcome`` tells what came
            of it. KafkaUnavailable: When Kafka does not answer. The request may stand.
        """
        return self._cancelling.cancel(message_id, timeout_s=timeout_s)

    def outcome(self, message_id: str) -> Outcome | None:
        """What was decided about cancelling a message; None when nothing was asked, or nothing is decided
        yet.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self._view.outcome(message_id)

    def flush(self, queue: str) -> None:
        """Drop what waits for a queue now: it neither counts nor runs any more, but for what is due already.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        topic = look_up(self._clients, self._topics)
        commands = [
            flush_command(topic.name, queue, partition=number) for number in range(topic.partition_count)
        ]
        failures = self._publisher.publish(commands)
        for failure in failures.values():
            raise not_published(f"Kafka did not acknowledge the flush of {queue!r}", failure) from failure

    def close(self) -> None:
        """Close this process's connections. They are made again when they are needed."""
        self._view.close()
