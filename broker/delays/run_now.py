"""Running delayed messages now: the client writes a request, and waits until a forwarder has forwarded them.

The request names delays, not messages, and makes them due: a message that is delayed again later waits for
its time. Only the forwarder that owns the partition forwards, so a message is never forwarded twice for a
request. All requests of a partition have one key, so compaction keeps the latest. An earlier one is lost if
no worker ran for an hour, and its messages run when they are due.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from ..kafka.topics import Topics
from ..process import clock
from ..produce.publisher import Publisher, publish_all
from ..produce.record import Record
from .record_format import Outcome, due_now
from .view import DelayView

#: The delays in one request: a record of the delayed topic has at most a megabyte.
MAX_DELAYS = 500
#: The interval in which the delayed topic is read while the caller waits.
POLL_INTERVAL_S = 0.1


class RunNowClient:
    """Writes the requests, and waits for their effect."""

    def __init__(self, topics: Topics, publisher: Publisher, view: DelayView) -> None:
        self._topics = topics
        self._publisher = publisher
        self._view = view

    def run_now(self, message_ids: Iterable[str], *, timeout_s: float) -> dict[str, Outcome | None]:
        """See ``Delays.run_now``."""
        wanted = list(dict.fromkeys(message_ids))
        waiting = self._view.delays_of(wanted)
        outcomes: dict[str, Outcome | None] = {
            message_id: Outcome.TOO_LATE if self._view.was_forwarded(message_id) else Outcome.UNKNOWN
            for message_id in wanted
            if message_id not in waiting
        }
        if waiting:
            delays = [delay for delays in waiting.values() for delay in delays]
            publish_all(
                self._publisher, list(self._requests(delays)), "Kafka did not acknowledge the request"
            )
            deadline_s = clock.monotonic_s() + timeout_s
            left = self._wait(waiting, deadline_s)
            for message_id in waiting:
                if message_id in left:
                    outcomes[message_id] = None
                else:
                    forwarded = self._view.was_forwarded(message_id)
                    outcomes[message_id] = Outcome.FORWARDED if forwarded else Outcome.CANCELLED
        return {message_id: outcomes[message_id] for message_id in wanted}

    def _requests(self, delays: Collection[tuple[int, str]]) -> Iterator[Record]:
        by_partition: defaultdict[int, list[str]] = defaultdict(list)
        for partition, delay_id in delays:
            by_partition[partition].append(delay_id)
        for partition, ids in by_partition.items():
            for start in range(0, len(ids), MAX_DELAYS):
                yield due_now(self._topics.delayed, ids[start : start + MAX_DELAYS], partition=partition)

    def _wait(self, waiting: dict[str, list[tuple[int, str]]], deadline_s: float) -> set[str]:
        """Wait until the delays are done. Return the messages with a delay that is not."""
        asked = {message_id: set(delays) for message_id, delays in waiting.items()}
        while True:
            now = self._view.delays_of(asked)
            left = {message_id for message_id in asked if asked[message_id] & set(now.get(message_id, ()))}
            if not left or clock.monotonic_s() >= deadline_s:
                return left
            clock.sleep(POLL_INTERVAL_S)
