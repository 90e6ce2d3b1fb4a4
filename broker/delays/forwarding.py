"""What is done about the delays of the partitions at hand: forward, settle, tell."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from ..publisher import RECORD_ERRORS, Publisher, Record
from ..topics import Topics
from .index import Row
from .partitions import OwnedPartition
from .records import cancel_decision, cancel_forgotten, tombstone

logger = logging.getLogger(__name__)

#: What is forwarded at once: the step in which new records wait, and what a crash can repeat.
PAGE_ROWS = 500
PAGE_BYTES = 4 * 1024 * 1024
#: Until the next attempt for a message that could not be forwarded.
FAILED_BACKOFF_MS = 500
#: The same, for one that its queue's topic refuses (too large, not authorized): only an operator can change
#: that.
REFUSED_BACKOFF_MS = 60_000
#: How long the outcome of a cancel can be read.
OUTCOME_RETENTION_MS = 7 * 24 * 3600 * 1000


class Forwarding:
    """Brings delays and cancel requests to their end, a page at a time.

    Every step is noted in the index after Kafka has acknowledged it, and what is noted is not done again.
    """

    def __init__(self, topics: Topics, publisher: Publisher) -> None:
        self._topics = topics
        self._publisher = publisher

    def step(self, ready: Sequence[OwnedPartition], now_ms: int) -> BaseException | None:
        """Do a page of what there is to do.

        Returns:
          Why Kafka acknowledged nothing of it; None when it acknowledged something, or there was nothing to
          do.
        """
        acknowledged, reasons = 0, []
        for do in (self._forward, self._settle, self._tell):
            done, reason = do(ready, now_ms)
            acknowledged += done
            if reason is not None:
                reasons.append(reason)
        return reasons[0] if reasons and not acknowledged else None

    def _forward(self, ready: Sequence[OwnedPartition], now_ms: int) -> tuple[int, BaseException | None]:
        by_queue: dict[str, list[tuple[OwnedPartition, Row]]] = defaultdict(list)
        for owned in ready:
            # The same share for each: one with a long backlog does not hold up the others.
            share = {"limit": PAGE_ROWS // len(ready) + 1, "limit_bytes": PAGE_BYTES // len(ready)}
            for row in owned.index.due(now_ms, **share):
                by_queue[row.delay.queue].append((owned, row))
        acknowledged, reason = 0, None
        for queue, page in by_queue.items():
            # One publish a queue: one whose topic cannot be created does not hold up the others.
            topic = self._topics.queue(queue)
            records = [
                Record(topic, row.delay.value, key=row.delay.key, headers=list(row.delay.headers))
                for _, row in page
            ]
            failures = self._publisher.publish(records)
            self._note_forwarded(page, failures, now_ms)
            acknowledged += len(page) - len(failures)
            reason = reason or next(iter(failures.values()), None)
        return acknowledged, reason

    def _note_forwarded(
        self, page: list[tuple[OwnedPartition, Row]], failures: dict[int, BaseException], now_ms: int
    ) -> None:
        forwarded: dict[int, list[Row]] = defaultdict(list)
        postponed: dict[tuple[int, int], list[Row]] = defaultdict(list)
        owners = {id(owned): owned for owned, _ in page}
        for number, (owned, row) in enumerate(page):
            failure = failures.get(number)
            if failure is None:
                forwarded[id(owned)].append(row)
            elif isinstance(failure, RECORD_ERRORS):
                logger.error(
                    "Kafka refuses the delayed message %s; it is kept: %r", row.delay.message_id, failure
                )
                postponed[id(owned), REFUSED_BACKOFF_MS].append(row)
            else:
                postponed[id(owned), FAILED_BACKOFF_MS].append(row)
        for owner, rows in forwarded.items():
            owners[owner].index.mark_forwarded(rows)
        for (owner, backoff_ms), rows in postponed.items():
            owners[owner].index.postpone(rows, until_ms=now_ms + backoff_ms)

    def _settle(self, ready: Sequence[OwnedPartition], now_ms: int) -> tuple[int, BaseException | None]:
        """Write the tombstones of what was forwarded, cancelled or flushed."""
        page = [(owned, settlement) for owned in ready for settlement in owned.index.to_settle(PAGE_ROWS)]
        failures = self._publisher.publish(
            [
                tombstone(owned.partition.topic, done.id, done.outcome, partition=owned.partition.partition)
                for owned, done in page
            ]
        )
        for owned in ready:
            owned.index.mark_settled(
                [
                    done
                    for number, (owner, done) in enumerate(page)
                    if owner is owned and number not in failures
                ]
            )
        return len(page) - len(failures), next(iter(failures.values()), None)

    def _tell(self, ready: Sequence[OwnedPartition], now_ms: int) -> tuple[int, BaseException | None]:
        """Answer the cancel requests, and forget the answers of long ago."""
        acknowledged, reason = 0, None
        for owned in ready:
            topic, partition = owned.partition
            decisions = owned.index.to_tell(PAGE_ROWS)
            old = owned.index.to_forget(now_ms - OUTCOME_RETENTION_MS, PAGE_ROWS)
            records = [cancel_decision(topic, decision, partition=partition) for decision in decisions]
            records += [cancel_forgotten(topic, request_id, partition=partition) for request_id in old]
            failures = self._publisher.publish(records)
            owned.index.mark_told([decision for n, decision in enumerate(decisions) if n not in failures])
            acknowledged += len(records) - len(failures)
            reason = reason or next(iter(failures.values()), None)
        return acknowledged, reason
