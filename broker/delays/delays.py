"""The interface of delayed messages to the rest of the broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dramatiq.message import Message

from ..kafka.clients import Clients
from ..kafka.topics import Topics
from ..kafka.types import Headers
from ..partition_keys.record_format import REQUEUE_HEADERS_BYTES
from ..process import clock
from ..process.caller import caller
from ..produce.publisher import Publisher, publish_all
from ..produce.record import Record
from ..reaper.registrar import MembershipSlot
from .cancellation import CancelClient
from .delayed_topic import look_up
from .forwarder import Forwarder
from .forwarding import Forwarding, NoteForward, WriteDeadLetter
from .index_check import IndexFileFinding
from .index_files import IndexFiles
from .record_format import CancelNote, Outcome, delay_record, flush_command
from .run_now import RunNowClient
from .view import Cancellation, DelayView, Pending


class Delays:
    """The delayed messages of a namespace. The constructor connects to nothing.

    Parameters:
      index_dir: The directory of this machine's indexes; None for the user's cache directory.
      add_dead_letter: Called with the error and a due delay that its queue refuses for its size. It starts to
        dead-letter the message. Without it the message stays in the delayed topic.
      note_forward: Called with the time since a forwarded message was due, in seconds.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        *,
        index_dir: str | Path | None = None,
        add_dead_letter: WriteDeadLetter | None = None,
        note_forward: NoteForward = lambda lateness_s: None,
    ) -> None:
        self._note_forward = note_forward
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self._files = IndexFiles(index_dir)
        self._add_dead_letter = add_dead_letter
        self._cancel_client = CancelClient(clients, topics, publisher)
        self._view = DelayView(clients, topics)
        self._run_now_client = RunNowClient(topics, publisher, self._view)

    def check_index_files(self) -> list[IndexFileFinding] | None:
        """See ``KafkaBroker.check_index_files``."""
        return self._files.check(self._topics.delayed)

    def record(
        self,
        message: Message[Any],
        delay_ms: float,
        *,
        headers: Iterable[tuple[str, bytes]] = (),
        key: bytes | None = None,
    ) -> Record:
        """The record of the delayed topic that holds ``message`` until ``delay_ms`` from now. No request is
        made.

        Parameters:
          headers: The headers of the message's record in the queue's topic.
          key: The key of the message's record in the queue's topic.

        Raises:
          TypeError: When the delay is not a number.
          ValueError: When the delay is negative, not finite, or longer than ten years.
        """
        return delay_record(
            self._topics.delayed,
            message,
            delay_ms,
            headers=headers,
            key=key,
            destination=self._topics.queue(message.queue_name),
            reserved_bytes=0 if key is None else REQUEUE_HEADERS_BYTES,
        )

    def forwarder(
        self, settings: Mapping[str, Any] | None = None, slot: MembershipSlot | None = None
    ) -> Forwarder:
        """A forwarder for this process, not started. All forwarders of a namespace share its partitions.

        Parameters:
          settings: Further settings of kafka-python's consumer, such as ``session_timeout_ms``.
          slot: Takes the membership in the group of forwarders.
        """
        forwarding = Forwarding(
            self._topics, self._publisher, self._add_dead_letter, note_forward=self._note_forward
        )
        return Forwarder(self._clients, self._topics, forwarding, self._files, settings or {}, slot)

    def count(self, queue: str) -> int:
        """The number of messages that wait for a queue.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.pending(queue, limit=0).count

    def pending(self, queue: str, *, limit: int = 100) -> Pending:
        """The messages that wait for a queue: their number, the next due time, and the first ``limit`` by due
        time.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self._view.pending([queue], limit=limit)[queue]

    def counts(self, queues: Iterable[str]) -> dict[str, Pending]:
        """The same of several queues, without the messages, at one moment.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self._view.pending(queues, limit=0)

    def waiting(self, queue: str) -> list[tuple[str, Headers]]:
        """The ids of all messages that wait for a queue, and the headers of their records there.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self._view.waiting(queue)

    def cancel(
        self, message_id: str, *, reason: str = "", by: str | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        """Drop the delays of a message.

        Parameters:
          reason, by: Why and who, for ``cancellations``; this system's user and host by default.

        Returns:
          CANCELLED: The message waited and will not run. TOO_LATE: The message is on its queue, or may be.
            UNKNOWN: No message with that id waits, and none was forwarded recently.

        Raises:
          CancelUndecided: When no forwarder decided in time. The request stands; ``outcome`` returns the
            decision later.
          KafkaUnavailable: When Kafka does not answer. The request may stand.
        """
        note = CancelNote(caller() if by is None else by, reason, clock.wall_ms())
        return self._cancel_client.cancel(message_id, note, timeout_s=timeout_s)

    def run_now(self, message_ids: Iterable[str], *, timeout_s: float = 10.0) -> dict[str, Outcome | None]:
        """Forward delayed messages to their queues now, whatever their due times.

        Returns:
          By message id: FORWARDED: The message is on its queue. TOO_LATE: It was forwarded before. UNKNOWN:
            No message with that id waits here. CANCELLED: It was dropped meanwhile. None: No forwarder has
            forwarded it within ``timeout_s``. The request stands.

        Raises:
          KafkaUnavailable: When Kafka does not answer. The request may stand.
        """
        return self._run_now_client.run_now(message_ids, timeout_s=timeout_s)

    def outcome(self, message_id: str) -> Outcome | None:
        """The decision about cancelling a message; None when there was no request, or there is no decision
        yet.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self._view.outcome(message_id)

    def cancellations(self, message_id: str) -> list[Cancellation]:
        """The requests to cancel a message of the last week, by their time, with who asked and why.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self._view.cancels_of(message_id)

    def flush(self, queue: str) -> None:
        """Drop the messages that wait for a queue now: they neither count nor run any more, except messages
        that are already due.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        topic = look_up(self._clients, self._topics)
        commands = [
            flush_command(topic.name, queue, partition=number) for number in range(topic.partition_count)
        ]
        publish_all(self._publisher, commands, f"Kafka did not acknowledge the flush of {queue!r}")

    def close(self) -> None:
        """Close this process's connections. The next call that needs one connects again."""
        self._view.close()
