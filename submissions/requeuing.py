"""Publishing pending submissions again whose messages Kafka has lost.

A submission is marked as published once Kafka has acknowledged its message. A topic that was deleted, an
unclean election or a purge can lose the message later, and the submission then waits for ever. The first
outcome of a generation counts, so a message that is published twice does no harm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dramatiq.message import Message

from broker import KafkaBroker
from broker.dead_letters import caller
from db import audit, outbox
from db.audit import Change
from db.outbox import Published
from db.submissions import storable
from submissions.database import Database
from submissions.message import ACTOR, QUEUE

#: Submissions in one transaction.
BATCH = 500
#: The records of the queue that are read at most.
SCAN_LIMIT = 10_000_000

#: Where a message is; such a submission is left alone.
IN_QUEUE = "its message waits or runs"
DELAYED = "its message is delayed, or waits for its retry"
YOUNG = "it is younger than --older-than: its message may be on its way"
DEAD = "its message is a dead letter: redrive the submission once it has failed"


@dataclass(slots=True)
class Requeued:
    """The effect of a requeue, or, for a dry run, the effect that it would have.

    Attributes:
      lost: The submissions whose messages are not in Kafka.
      task_ids: Those that were made due to be published again.
      left: The number of the others, by the reason.
    """

    dry_run: bool
    lost: list[Published] = field(default_factory=list)
    task_ids: list[int] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


class Requeuer:
    """Finds pending submissions without a message, and has them published again."""

    def __init__(self, database: Database, broker: KafkaBroker) -> None:
        self._database = database
        self._broker = broker

    def requeue(
        self,
        task_ids: Sequence[int] | None = None,
        *,
        older_than_s: float,
        by: str | None = None,
        dry_run: bool = True,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Requeued:
        """Publish the pending submissions again that Kafka has no message of. The outbox sends them.

        Parameters:
          task_ids: Only these; all pending ones by default.
          older_than_s: Only submissions of that age: the message of a new one may be on its way.
          by: The person or program, for the audit log; by default this system's user and host.
          dry_run: Only return the effect that it would have.
          on_progress: Called with the number of records read, and of all.

        Raises:
          DatabaseError, BrokerConnectionError: Finished steps stay finished: repeat the call.
        """
        # The rows first: a message that comes to Kafka afterwards belongs to none of them.
        rows = list(self._rows(task_ids, older_than_s))
        done = Requeued(dry_run)
        with self._database.transaction() as connection:
            if young := outbox.count_younger(connection, task_ids=task_ids, than_s=older_than_s):
                done.left[YOUNG] = young
        if not rows:
            return done
        places = self._places({row.message_id: row.generation for row in rows}, on_progress)
        for row in rows:
            if (place := places.get(row.message_id)) is not None:
                done.left[place] += 1
            else:
                done.lost.append(row)
        if not dry_run:
            by = storable(caller() if by is None else by)
            for start in range(0, len(done.lost), BATCH):
                chosen = [row.task_id for row in done.lost[start : start + BATCH]]
                with self._database.transaction() as connection:
                    task_ids = outbox.publish_again(connection, chosen)
                    if task_ids:
                        audit.record(connection, Change("requeue", done_by=by, task_ids=task_ids))
                done.task_ids += task_ids
        return done

    def _rows(self, task_ids: Sequence[int] | None, older_than_s: float) -> Iterator[Published]:
        after = 0
        while True:
            with self._database.transaction() as connection:
                page = outbox.read_published(
                    connection, task_ids=task_ids, older_than_s=older_than_s, after=after, limit=BATCH
                )
            if not page:
                return
            yield from page
            after = page[-1].task_id

    def _places(
        self, generations: dict[str, int], on_progress: Callable[[int, int], None] | None
    ) -> dict[str, str]:
        """Where the messages are that Kafka has. The generation of each submission is given by message id.

        A message moves from the queue to its delay and back. The queue is read before and after the delays,
        so that a message that moves once meanwhile is found.
        """
        wanted = set(generations)
        places: dict[str, str] = {}
        for one in self._broker.dead_letters(QUEUE, actor=ACTOR):
            message_id = "" if one.message is None else one.message.message_id
            # A dead letter of an earlier generation is that of a redriven submission.
            if message_id in wanted and one.generation >= generations[message_id]:
                places[message_id] = DEAD
        places |= self._in_queue(wanted, on_progress)
        delayed = self._broker.delayed(QUEUE, limit=SCAN_LIMIT).messages
        places |= {one.message_id: DELAYED for one in delayed if one.message_id in wanted}
        missing = wanted - places.keys()
        return places | self._in_queue(missing, on_progress) if missing else places

    def _in_queue(self, wanted: set[str], on_progress: Callable[[int, int], None] | None) -> dict[str, str]:
        def is_wanted(message: Message[Any]) -> bool:
            return message.message_id in wanted

        found = self._broker.find(
            QUEUE, where=is_wanted, limit=SCAN_LIMIT, scan_limit=SCAN_LIMIT, on_progress=on_progress
        )
        if not found.is_complete:
            raise ValueError(
                f"the queue has more than {SCAN_LIMIT:,} records: work its backlog off before a requeue"
            )
        return {record.message.message_id: IN_QUEUE for record in found.records}
