"""The methods that command workers: pause, abort, quiet, stop."""

from __future__ import annotations

from datetime import UTC, datetime

from ..control import AbortOutcome, Command, PauseResult, Pauses
from ..errors import ParameterRefused, UnknownWorker
from ..parameters import (
    check_moments,
    check_names,
    check_seconds,
)
from ..process import clock
from ..reports.history_event import EventKind
from .observation import ObservationMethods

#: The time for which an abort is in force: the default retention of a queue.
ABORT_EXPIRES_AFTER_MS = 7 * 24 * 3600 * 1000
#: The clock of a worker may be behind that of an operator by so much.
CLOCK_SKEW_MS = 60_000
#: The interval in which a caller that waits for an abort reads the history.
ABORT_POLL_S = 0.25
#: The time for which the topic of the reports keeps those of a worker.
REPORTS_KEPT_S = 24 * 3600.0


class CommandMethods(ObservationMethods):
    """Commands, which workers read from the control topic."""

    def pause(
        self, queue_name: str, *, reason: str, by: str | None = None, timeout_s: float = 0.0
    ) -> PauseResult:
        """Let no task of a queue begin, on any worker of the namespace, until :meth:`resume`.

        The pause is durable: it outlives this process, the workers and a restart of Kafka. Running tasks
        continue. The queue takes messages, retries and due delayed messages, which wait in their order; Kafka
        deletes them after the queue's retention.

        The call returns when Kafka has acknowledged the pause. Workers read it within milliseconds. A result
        that ``is_certain`` says that no task of the queue begins any more; see ``docs/control.md`` for the
        workers that are frozen or cut off from Kafka, and for those that cannot read commands.

        Parameters:
          reason: Why, for the log of each worker.
          by: Who; this system's user and host by default.
          timeout_s: The time for which the call waits until the pause is in force, at most 11 s; and 3 s more
            for the report of a worker that has just joined.

        Raises:
          QueueNotFound: When the queue was not declared.
          ParameterRefused: When the reason is blank, or a parameter is of another type.
          KafkaUnavailable: When Kafka does not answer. The pause may stand.
          NotAuthorized: When this client may not write to the control topic.
          TopicMisconfigured: When the settings of the control topic lose commands.
        """
        self._check_declared(queue_name)
        return self.parts.commands.pause(queue_name, reason=reason, by=by, timeout_s=timeout_s)

    def abort(
        self,
        message_id: str,
        *,
        reason: str = "",
        by: str | None = None,
        expires_at: datetime | None = None,
        timeout_s: float = 0.0,
    ) -> AbortOutcome:
        """Let a message not run, wherever it is: on its queue, delayed, behind an earlier one of its key, or
        running.

        A message that has not begun is completed without a run, when its turn comes. A running task gets
        ``Abort`` in its thread, or its coroutine is cancelled. No attempt is counted, and there is neither a
        retry nor a dead letter. The abort is durable: it outlives workers, and it is in force until it
        expires, also for a redrive of the message.

        Parameters:
          reason, by: Why and who, for the record; this system's user and host by default.
          expires_at: The end of the abort, with a time zone; by default after a week.
          timeout_s: The time for which the call waits until a worker has said that the message is aborted. It
            says so in the history: without reports, the outcome is RECORDED.

        Raises:
          ParameterRefused: When ``expires_at`` has no time zone or is over, or 100,000 aborts stand.
          KafkaUnavailable: When Kafka does not answer. The abort may stand.
          NotAuthorized: When this client may not write to the control topic.
        """
        check_names(message_id=message_id)
        check_moments(expires_at=expires_at)
        check_seconds(timeout_s=timeout_s)
        now_ms = clock.wall_ms()
        expires_at_ms = now_ms + ABORT_EXPIRES_AFTER_MS
        if expires_at is not None:
            expires_at_ms = int(expires_at.timestamp() * 1000)
        if expires_at_ms <= now_ms:
            raise ParameterRefused(f"expires_at={expires_at} is over")
        self.parts.commands.abort(message_id, expires_at_ms=expires_at_ms, reason=reason, by=by)
        deadline_s = clock.monotonic_s() + timeout_s
        since = datetime.fromtimestamp((now_ms - CLOCK_SKEW_MS) / 1000, UTC)
        while clock.monotonic_s() < deadline_s:
            events = self.history(message_id=message_id, since=since)
            if any(event.kind == EventKind.ABORTED for event in events):
                return AbortOutcome.ABORTED
            clock.sleep(ABORT_POLL_S)
        return AbortOutcome.RECORDED

    def resume(self, queue_name: str, *, reason: str = "", by: str | None = None) -> Command:
        """End the pause of a queue. It has no effect on a queue that is not paused.

        The call returns when Kafka has acknowledged it. The parameters and errors are those of
        :meth:`pause`.
        """
        self._check_declared(queue_name)
        return self.parts.commands.resume(queue_name, reason=reason, by=by)

    def paused_queues(self) -> Pauses[Command]:
        """The pauses that stand, by queue, read from Kafka. Queues that are not declared here are among them.

        The dictionary's ``unreadable`` names the queues whose last command is damaged, or of a later version:
        whether they are paused is unknown. ``is_complete`` is true without one.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.parts.commands.paused()

    def pauses(self) -> Pauses[PauseResult]:
        """The same with the workers of each queue: those that have applied the pause, and in ``unknown``
        those that may run tasks nevertheless. Any process can call this, also long after the pause.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the commands.
        """
        return self.parts.commands.pauses()

    def quiet(
        self, worker_id: str, *, reason: str = "", by: str | None = None, allow_unseen: bool = False
    ) -> Command:
        """Let a worker process take no more work. Its running tasks continue, and it lives on.

        Other workers get its prefetched messages: it leaves the group of a queue as soon as none of its tasks
        of that queue runs. It stays quiet until it ends. The command expires after a day.

        Parameters:
          worker_id: The id of the worker, as its log and its reports name it.
          allow_unseen: Whether the worker may be one that has not reported within a day, as a worker that is
            about to start, or one with ``reports=False``.

        Raises:
          UnknownWorker: When no worker of that id has reported within a day. Nothing was recorded.
          KafkaUnavailable, NotAuthorized, TopicMisconfigured: As :meth:`pause`.
        """
        check_names(worker_id=worker_id)
        if not allow_unseen:
            self._check_has_reported(worker_id)
        return self.parts.commands.quiet(worker_id, reason=reason, by=by)

    def stop(
        self, worker_id: str, *, reason: str = "", by: str | None = None, allow_unseen: bool = False
    ) -> Command:
        """End a worker process in good order: it sends SIGTERM to itself.

        Dramatiq's command line stops all its processes when one of them ends. The parameters and errors are
        those of :meth:`quiet`.
        """
        check_names(worker_id=worker_id)
        if not allow_unseen:
            self._check_has_reported(worker_id)
        return self.parts.commands.stop(worker_id, reason=reason, by=by)

    def _check_has_reported(self, worker_id: str) -> None:
        known = [worker.worker_id for worker in self.workers(within_s=REPORTS_KEPT_S)]
        if worker_id not in known:
            raise UnknownWorker(worker_id, known)
