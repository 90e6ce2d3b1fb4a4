"""The dead letters of a queue: read them, put them back on the queue, or put them away."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Iterator
from typing import Unpack

from ..kafka.clients import Clients
from ..kafka.topics import Topics
from ..produce.publisher import Publisher
from .dead_letter import DeadLetter, Filters, Selection
from .redriving import History, RedriveRequest, Resolved, Resolver, open_dead_letters
from .resolution import Action, Resolution, ResolutionState, is_resolution, read_resolution
from .topic_log import DeadLetterTopic


class DeadLetterQueue:
    """What was rejected, queue by queue. Used by people and their scripts, not by workers.

    All methods raise KafkaUnavailable when Kafka does not answer, TypeError for filters that there are not,
    and ValueError for those that make no sense.
    """

    def __init__(self, clients: Clients, topics: Topics, publisher: Publisher) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher

    def read(self, queue_name: str, **filters: Unpack[Filters]) -> Iterator[DeadLetter]:
        """The dead letters that are there now and were neither redriven nor discarded.

        Those of one message are in order; a crash can have made two for one failure, the second like the
        first.

        Parameters:
          filters: See Filters; all of them have to hold.
        """
        selection = Selection.of(filters)
        return self._read(queue_name, selection)

    def _read(self, queue_name: str, selection: Selection) -> Iterator[DeadLetter]:
        with self._log(queue_name) as log:
            for partition in log.ends:
                history = History.of(log, partition)
                yield from open_dead_letters(log, partition, queue_name, history, selection)

    def redrive(
        self,
        queue_name: str,
        *,
        dry_run: bool = True,
        reason: str = "",
        by: str | None = None,
        rate_per_s: float | None = None,
        **filters: Unpack[Filters],
    ) -> Resolved:
        """Put dead letters back on their queue.

        A message keeps its id and its headers and begins a new life: no attempt is counted, and
        ``message_timestamp``, which age limits and policies go by, is now. Its option ``redrives`` counts
        its lives, ``first_sent_timestamp`` is when the first one began.

        Interrupted anywhere, it can be run again with the same filters: what was sent is found on the queue
        and not sent a second time. Only where the queue has lost those records since (retention, a flush) is
        a message sent again, with the same id and the same ``redrives``. Two redrives of the same letters at
        the same time are not guarded against.

        Parameters:
          dry_run: Only say what would be done.
          reason: Why; it is kept. Needed unless it is a dry run.
          by: Who; this system's user and host by default.
          rate_per_s: At most so many messages a second.
          filters: See Filters. Without any: all of them.

        Raises:
          EnqueueFailed: When Kafka did not acknowledge some messages. What was done before stays done: run
            it again.
        """
        order = _order(Action.REDRIVE, queue_name, dry_run, reason, by, rate_per_s)
        return Resolver(self._clients, self._topics, self._publisher, order).run(Selection.of(filters))

    def discard(
        self,
        queue_name: str,
        *,
        dry_run: bool = True,
        reason: str = "",
        by: str | None = None,
        **filters: Unpack[Filters],
    ) -> Resolved:
        """Put dead letters away: they are no longer read, and stay in Kafka until its retention removes them.

        The parameters are those of ``redrive``.
        """
        order = _order(Action.DISCARD, queue_name, dry_run, reason, by, None)
        return Resolver(self._clients, self._topics, self._publisher, order).run(Selection.of(filters))

    def history(self, queue_name: str) -> Iterator[Resolution]:
        """What was done about the queue's dead letters, partition by partition.

        A redrive is there batch by batch, and each once: as done, or as begun where it was interrupted. The
        one that was run after it found what it had sent.
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
        return DeadLetterTopic(self._clients, topic)


def _order(
    action: Action, queue_name: str, dry_run: bool, reason: str, by: str | None, rate_per_s: float | None
) -> RedriveRequest:
    if not dry_run and not reason.strip():
        raise ValueError(f"a {action.value} needs reason=, which is kept with what was done")
    if rate_per_s is not None and rate_per_s <= 0:
        raise ValueError(f"rate_per_s={rate_per_s}: pass a positive number, or None for no limit")
    return RedriveRequest(
        operation=secrets.token_hex(8),
        action=action,
        queue_name=queue_name,
        by=caller() if by is None else by,
        reason=reason,
        dry_run=dry_run,
        rate_per_s=rate_per_s,
    )


def caller() -> str:
    """Who runs this process, as the audit records name them: ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
