"""The dead letters of a queue: reading, redriving and discarding them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Unpack

from ..errors import ParameterRefused
from ..kafka.clients import Clients
from ..kafka.topics import Topics
from ..parameters import check_names, check_rate, check_texts
from ..process.caller import caller
from ..process.forks import reset_on_fork
from ..produce.publisher import Publisher
from .dead_letter import DeadLetter, Filters, Selection
from .importing import Imported, Importer, ImportRequest, OnProgress
from .redriving import History, RedriveRequest, Resolved, Resolver, open_dead_letters
from .resolution import Action, Resolution, ResolutionState, is_resolution, read_resolution
from .tally import DeadLetterTally
from .topic_log import DeadLetterTopic, LogBounds, TopicLogs


class DeadLetterQueue:
    """The dead letters of all queues. Operators and their scripts use it; workers do not.

    All methods raise KafkaUnavailable when Kafka does not answer, TypeError for unknown filters, and
    ValueError for invalid ones.
    """

    def __init__(self, clients: Clients, topics: Topics, publisher: Publisher) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self._logs: TopicLogs | None = None
        self._bounds: Mapping[str, LogBounds] = {}
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Forget the tallies: another thread of the parent may hold their locks."""
        self._tallies: dict[str, DeadLetterTally] = {}

    def read(self, queue_name: str, **filters: Unpack[Filters]) -> Iterator[DeadLetter]:
        """The present dead letters that were neither redriven nor discarded.

        The dead letters of one message are in order. A crash can leave two equal dead letters of one failure.

        Parameters:
          filters: See Filters. A dead letter must match all of them.
        """
        check_names(queue_name=queue_name)
        selection = Selection.of(filters)
        return self._read(queue_name, selection)

    def _read(self, queue_name: str, selection: Selection) -> Iterator[DeadLetter]:
        with self._log(queue_name) as log:
            for partition in log.ends:
                history = History.of(log, partition)
                yield from open_dead_letters(log, partition, queue_name, history, selection)

    def count(self, queue_name: str) -> int:
        """The number of present dead letters that were neither redriven nor discarded.

        All are read the first time, and those written since at later calls.
        """
        return sum(self.count_by_error(queue_name).values())

    def count_by_error(self, queue_name: str) -> dict[str, int]:
        """The same by the class name of the error, which is empty for a message that failed without one."""
        with self._log(queue_name) as log:
            return self._tally(queue_name).count(log)

    def counts_by_error(self, bounds: Mapping[str, LogBounds]) -> dict[str, dict[str, int]]:
        """The same of several queues, by queue. One client reads the records that were not counted before.

        Parameters:
          bounds: The bounds of the log of each queue's dead-letter topic.
        """
        found = {}
        with TopicLogs(self._clients) as logs:
            for name, known in bounds.items():
                topic = self._topics.dead_letters(name)
                log = DeadLetterTopic(self._clients, topic, bounds=known, logs=logs)
                found[name] = self._tally(name).count(log)
        return found

    @contextmanager
    def up_to(self, bounds: Mapping[str, LogBounds]) -> Iterator[DeadLetterQueue]:
        """The same dead letters and resolutions, up to known ends, read by one client.

        Parameters:
          bounds: The bounds of the log of each queue that is read, as ``QueueState.dead_log`` has them.

        Yields:
          A reader for this block: one queue at a time, on one thread.
        """
        with TopicLogs(self._clients) as logs:
            reader = copy(self)
            reader._logs, reader._bounds = logs, bounds
            yield reader

    def _tally(self, queue_name: str) -> DeadLetterTally:
        return self._tallies.setdefault(queue_name, DeadLetterTally())

    def redrive(
        self,
        queue_name: str,
        *,
        dry_run: bool = True,
        reason: str = "",
        by: str | None = None,
        rate_per_s: float | None = None,
        on_progress: Callable[[int], object] | None = None,
        **filters: Unpack[Filters],
    ) -> Resolved:
        """Put dead letters back on their queue.

        A message keeps its id and its headers and starts a new generation: its attempts count from zero, and
        ``message_timestamp``, which age limits and policies use, is now. The option ``redrives`` counts the
        generations after the first; ``first_sent_timestamp`` is the start of the first one.

        An interrupted redrive can be repeated with the same filters: it finds the sent messages on the queue
        and does not send them again. A message is sent twice, with the same id and the same ``redrives``,
        only if the queue has lost its record since (retention, a flush). Two concurrent redrives of the same
        dead letters are not prevented.

        Parameters:
          dry_run: Only report the dead letters that would be redriven.
          reason: The reason, which the history keeps. Required unless it is a dry run.
          by: The author; this system's user and host by default.
          rate_per_s: The maximum number of messages per second.
          on_progress: Called with the number of dead letters that are done after each batch, whose resolution
            Kafka has acknowledged; not in a dry run.
          filters: See Filters. Without filters, all dead letters are redriven.

        Raises:
          EnqueueFailed: When Kafka did not acknowledge some messages. The earlier batches are done; repeat
            the redrive.
        """
        request = _request(Action.REDRIVE, queue_name, dry_run, reason, by, rate_per_s)
        resolver = Resolver(self._clients, self._topics, self._publisher, request, on_progress)
        return resolver.run(Selection.of(filters))

    def discard(
        self,
        queue_name: str,
        *,
        dry_run: bool = True,
        reason: str = "",
        by: str | None = None,
        on_progress: Callable[[int], object] | None = None,
        **filters: Unpack[Filters],
    ) -> Resolved:
        """Discard dead letters: they are no longer read, and Kafka keeps their records until its retention.

        The parameters are those of ``redrive``.
        """
        request = _request(Action.DISCARD, queue_name, dry_run, reason, by, None)
        resolver = Resolver(self._clients, self._topics, self._publisher, request, on_progress)
        return resolver.run(Selection.of(filters))

    def import_copies(
        self,
        queue_name: str,
        dead_letters: Iterable[DeadLetter],
        *,
        dry_run: bool = True,
        reason: str = "",
        by: str | None = None,
        include_resolved: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Imported:
        """Write copies of dead letters, as of another cluster, unless they are here already.

        A copy keeps the message, the error, the time and the headers of its dead letter, and has a header
        with the author, the reason and the time of the import. It is redriven and discarded as any other. An
        interrupted import can be repeated, and a repeated import writes nothing. Two concurrent imports of
        the same dead letters are not prevented.

        Parameters:
          dead_letters: All of them are kept in memory.
          dry_run: Only report the dead letters that would be written.
          reason: The reason, which the copies keep. Required unless it is a dry run.
          by: The author; this system's user and host by default.
          include_resolved: Whether to write also those that were redriven or discarded here.
          on_progress: Called with the result so far after each batch that Kafka has acknowledged.

        Raises:
          EnqueueFailed: When Kafka did not acknowledge some of them. Repeat the import.
        """
        request = ImportRequest(queue_name, dry_run, reason, by, include_resolved)
        importer = Importer(self._clients, self._topics, self._publisher, request)
        return importer.run(dead_letters, on_progress)

    def history(self, queue_name: str) -> Iterator[Resolution]:
        """The resolutions of the queue's dead letters, partition by partition.

        A redrive yields one resolution per batch: done, or begun where it was interrupted. A repeated redrive
        does not send the messages of an interrupted batch again.
        """
        with self._log(queue_name) as log:
            for partition in log.ends:
                resolutions = [
                    read_resolution(record.value, partition)
                    for record in log.records(partition)
                    if is_resolution(record.headers)
                ]
                done = {
                    (resolution.operation, offset)
                    for resolution in resolutions
                    if resolution.state is ResolutionState.DONE
                    for offset in resolution.dead_letters
                }
                for resolution in resolutions:
                    ended = all((resolution.operation, offset) in done for offset in resolution.dead_letters)
                    if resolution.state is ResolutionState.DONE or not ended:
                        yield resolution

    def _log(self, queue_name: str) -> DeadLetterTopic:
        topic = self._topics.dead_letters(queue_name)
        self._topics.ensure([topic], for_reading=True)
        return DeadLetterTopic(self._clients, topic, bounds=self._bounds.get(queue_name), logs=self._logs)


def _request(
    action: Action, queue_name: str, dry_run: bool, reason: str, by: str | None, rate_per_s: float | None
) -> RedriveRequest:
    check_names(queue_name=queue_name)
    check_texts(reason=reason, by=by)
    if not dry_run and not reason.strip():
        raise ParameterRefused(f"a {action.value} needs reason=, which the history keeps")
    check_rate(rate_per_s)
    return RedriveRequest(
        operation=secrets.token_hex(8),
        action=action,
        queue_name=queue_name,
        by=caller() if by is None else by,
        reason=reason,
        dry_run=dry_run,
        rate_per_s=rate_per_s,
    )
