"""The methods about messages and dead letters: count, cancel, redrive, replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Unpack

from ..admin.lane_backlog import LaneState
from ..dead_letters import DeadLetter, DeadLetterQueue, Imported, Resolved
from ..dead_letters.dead_letter import DiscardOptions, Filters, RedriveOptions
from ..delays import Cancellation, Outcome, Pending
from ..parameters import (
    check_counts,
    check_names,
    check_seconds,
    check_texts,
)
from ..process.caller import caller
from ..replay import Replay, ReplayResult
from ..replay.request import DEFAULT_RATE_PER_S, Ids, OnProgress, ReplayRequest
from .base import OperatorBase


class MessageMethods(OperatorBase):
    """Messages that wait, dead letters, and replays."""

    def count(self, queue_name: str) -> int:
        """The number of incomplete messages of a queue: waiting, delayed, running or being settled.

        A message that moves between the queue and the delayed topic may be counted twice. The count is 0 only
        when no message is left.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        return self.parts.unfinished.count(queue_name)

    def delayed(self, queue_name: str, *, limit: int = 100) -> Pending:
        """The delayed messages of a queue: their number, the next due time, and the first ``limit`` by due
        time.

        Waiting retries are included. Any process can call this, without a worker: it reads Kafka.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        check_counts(0, limit=limit)
        return self.parts.delays.pending(queue_name, limit=limit)

    def lanes(self, queue_name: str, *, limit: int = 20) -> list[LaneState]:
        """The partition keys with the most messages that wait in Kafka for an earlier one of their key, or
        for a retry that keeps its order; the longest first.

        Messages behind a key that a worker has read ahead are not in Kafka, and not counted. Any process can
        call this.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        check_counts(0, limit=limit)
        return self.parts.lane_backlog.longest(queue_name, limit)

    def cancel(
        self, message_id: str, *, timeout_s: float = 10.0, reason: str = "", by: str | None = None
    ) -> Outcome:
        """Drop a delayed message, or one that waits for its retry; see ``Delays.cancel``.

        A worker must run; it decides: CANCELLED, TOO_LATE or UNKNOWN.

        Parameters:
          reason, by: Why and who, for :meth:`cancellations`; this system's user and host by default.

        Raises:
          CancelUndecided: When no worker decided within ``timeout_s``. The request stands.
          KafkaUnavailable: When Kafka does not answer. The request may stand.
        """
        check_names(message_id=message_id)
        check_seconds(timeout_s=timeout_s)
        check_texts(reason=reason, by=by)
        return self.parts.delays.cancel(message_id, reason=reason, by=by, timeout_s=timeout_s)

    def run_now(self, *message_ids: str, timeout_s: float = 10.0) -> dict[str, Outcome | None]:
        """Run delayed messages, and those that wait for their retry, now; see ``Delays.run_now``.

        A worker must run: it forwards them. A keyed message whose retry keeps its order waits in its lane,
        and not here: it is UNKNOWN.

        Returns:
          The outcome of each message: FORWARDED, TOO_LATE, UNKNOWN, CANCELLED, or None when no worker has
          forwarded it within ``timeout_s``. The request stands then.

        Raises:
          KafkaUnavailable: When Kafka does not answer. The request may stand.
        """
        for message_id in message_ids:
            check_names(message_id=message_id)
        check_seconds(timeout_s=timeout_s)
        return self.parts.delays.run_now(message_ids, timeout_s=timeout_s)

    def cancel_outcome(self, message_id: str) -> Outcome | None:
        """The decision about cancelling a message, which is kept for a week; None without a decision.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        check_names(message_id=message_id)
        return self.parts.delays.outcome(message_id)

    def cancellations(self, message_id: str) -> list[Cancellation]:
        """The requests to cancel a message, by their time: who asked, why, and the outcome. They are kept
        for a week after the decision.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        check_names(message_id=message_id)
        return self.parts.delays.cancellations(message_id)

    @property
    def dead_letter_queue(self) -> DeadLetterQueue:
        """The dead letters of all queues, and the history of their redrives and discards."""
        return self.parts.dead_letter_queue

    def dead_letters(self, queue_name: str, **filters: Unpack[Filters]) -> Iterator[DeadLetter]:
        """The dead letters of a queue that were neither redriven nor discarded.

        Their history is in ``dead_letter_queue``.

        Parameters:
          filters: See ``dead_letters.dead_letter.Filters``. A dead letter must match all of them.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.dead_letter_queue.read(queue_name, **filters)

    def redrive(self, queue_name: str, **options: Unpack[RedriveOptions]) -> Resolved:
        """Put dead letters back on their queue; see ``DeadLetterQueue.redrive``. A dry run by default."""
        return self.dead_letter_queue.redrive(queue_name, **options)

    def import_dead_letters(
        self,
        queue_name: str,
        dead_letters: Iterable[DeadLetter],
        *,
        dry_run: bool = True,
        reason: str = "",
        by: str | None = None,
        include_resolved: bool = False,
        on_progress: Callable[[Imported], object] | None = None,
    ) -> Imported:
        """Write copies of dead letters, unless they are here already; see ``DeadLetterQueue.import_copies``.
        A dry run by default.

        ``other.import_dead_letters("mail", broker.dead_letters("mail"))`` copies those of another cluster.
        """
        return self.dead_letter_queue.import_copies(
            queue_name,
            dead_letters,
            dry_run=dry_run,
            reason=reason,
            by=by,
            include_resolved=include_resolved,
            on_progress=on_progress,
        )

    def discard(self, queue_name: str, **options: Unpack[DiscardOptions]) -> Resolved:
        """Discard dead letters; see ``DeadLetterQueue.discard``. A dry run by default."""
        return self.dead_letter_queue.discard(queue_name, **options)

    def replay(
        self,
        queue_name: str,
        *,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = True,
        ids: Ids = "same",
        rate_per_s: float | None = DEFAULT_RATE_PER_S,
        limit: int | None = None,
        reason: str = "",
        by: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> ReplayResult:
        """Run the messages again that the queue's log still has; see ``docs/control.md``. A dry run by
        default.

        A message runs once, with the content of its latest record in the range and without its attempts, and
        the messages of a key keep their order. Messages that are not complete, and dead letters, are left
        alone. The log is read from the range to its end when the call begins.

        An interrupted replay can be repeated: the messages that it has sent are not sent again. Two
        concurrent replays of the same messages are not prevented.

        Parameters:
          actor: The actor; all by default.
          since, until: The range of the times at which records came to the queue: at or after ``since`` and
            before ``until``, with a time zone. An open end by default.
          dry_run: Only report the messages that would run.
          ids: ``"same"``: the messages keep their ids; ``"new"``: each gets a new one.
          rate_per_s: The maximum number of messages per second; None for no limit.
          limit: The maximum number of messages, the first ones in the log.
          reason: Why, for the record of the replay. Required unless it is a dry run.
          by: Who; this system's user and host by default.
          on_progress: Called with the result so far after each batch that Kafka has acknowledged. An error
            of it interrupts the replay.

        Raises:
          QueueNotFound: When the queue was not declared.
          ParameterRefused: When a parameter is out of its range, or the range has more than a million
            messages.
          EnqueueFailed: When Kafka did not acknowledge some messages. Repeat the replay.
          KafkaUnavailable: When Kafka does not answer. Repeat the replay.
          NotAuthorized: When this client lacks a right.
        """
        self._check_declared(queue_name)
        who = caller() if by is None else by
        request = ReplayRequest(queue_name, actor, since, until, dry_run, ids, rate_per_s, limit, reason, who)
        return self.parts.replayer.run(request, on_progress)

    def replays(self) -> list[Replay]:
        """The replays of the last 90 days, of all queues, by time: who ran what again, when and why.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the control topic.
        """
        return self.parts.replayer.replays()
