"""Redriving failed submissions with their dead letters.

A failed submission has a row and a dead letter in Kafka. A redrive first updates the row, in one
transaction: pending, next generation, due to be published. The outbox publishes it. Then the redrive
discards every dead letter whose submission has reached a later generation, whoever redrove that submission.
An interrupted redrive can therefore be repeated, and ends in the same state.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from broker import DeadLetter, KafkaBroker
from broker.dead_letters import caller
from db import audit
from db import redrive as table
from db.audit import Change
from db.redrive import FailedSubmission
from db.submissions import storable
from submissions.database import Database
from submissions.message import ACTOR, QUEUE

#: Submissions in one transaction, and message ids in one SELECT.
BATCH = 500

#: A message id, and the number of times that the message had been redriven.
Generation = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected failed submissions: all given conditions hold. Times are aware.

    Attributes:
      task_ids: These submissions; None for all.
      since, until: Submissions that failed at or after ``since``, and before ``until``.
    """

    task_ids: Sequence[int] | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(slots=True)
class Redriven:
    """The effect of a redrive, or, for a dry run, the effect that it would have.

    Attributes:
      task_ids: The submissions that were put back to pending.
      errors: Their number by the error with which they had failed.
      dead_letters: The number of discarded dead letters.
    """

    dry_run: bool
    task_ids: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0


class Redriver:
    """Redrives failed submissions."""

    def __init__(self, database: Database, broker: KafkaBroker) -> None:
        self._database = database
        self._broker = broker

    def redrive(
        self, selection: Selection, *, reason: str = "", by: str | None = None, dry_run: bool = True
    ) -> Redriven:
        """Put failed submissions back to pending, have them published again, and discard their dead letters.

        Submissions that have not failed stay as they are. The history of a submission keeps the failure,
        with ``by`` and ``reason``, and the audit log names both.
        ``broker.dead_letter_queue.history`` records the discarded dead letters.

        Parameters:
          reason: Required unless it is a dry run.
          by: The person or program; by default this system's user and host.
          dry_run: Only return the effect that a redrive would have.

        Raises:
          ValueError: There is no reason.
          DatabaseError, BrokerConnectionError: Finished steps stay finished: repeat the call.
        """
        if not dry_run and not reason.strip():
            raise ValueError("a redrive needs a reason, which is kept with what was done")
        by = caller() if by is None else by
        done = Redriven(dry_run)
        redriven: set[str] = set()
        for page in self._pages(selection):
            chosen = {one.task_id for one in page}
            if not dry_run:
                with self._database.transaction() as connection:
                    task_ids = table.redrive(connection, chosen, by=by, reason=reason)
                    if task_ids:
                        change = Change(
                            "redrive", done_by=storable(by), task_ids=task_ids, reason=storable(reason)
                        )
                        audit.record(connection, change)
                chosen.intersection_update(task_ids)
            for one in page:
                if one.task_id in chosen:
                    done.task_ids.append(one.task_id)
                    done.errors[one.error_message] += 1
                    redriven.add(one.message_id)
        done.dead_letters = self._discard_dead_letters(
            redriven if dry_run else set(), reason=reason, by=by, dry_run=dry_run
        )
        return done

    def _pages(self, selection: Selection) -> Iterator[list[FailedSubmission]]:
        """Yield the failed submissions in ascending order, so that none that fails again is met twice."""
        after = 0
        while True:
            with self._database.transaction() as connection:
                page = table.read_failed(
                    connection,
                    task_ids=selection.task_ids,
                    since=selection.since,
                    until=selection.until,
                    after=after,
                    limit=BATCH,
                )
            if not page:
                return
            yield page
            after = page[-1].task_id

    def _discard_dead_letters(self, about_to_go: set[str], *, reason: str, by: str, dry_run: bool) -> int:
        """Discard the dead letters of earlier generations; return their number.

        The generation decides, not the message id alone: a redriven message may have failed again by now,
        and that dead letter stays.
        """
        past = set(self._past(self._generations(), about_to_go))
        if not past:
            return 0
        resolved = self._broker.discard(
            QUEUE,
            dry_run=dry_run,
            reason=f"the submission was redriven: {reason}",
            by=by,
            where=lambda dead_letter: _generation(dead_letter) in past,
        )
        return resolved.selected

    def _generations(self) -> Iterator[Generation]:
        for dead_letter in self._broker.dead_letters(QUEUE, actor=ACTOR):
            if (generation := _generation(dead_letter)) is not None:
                yield generation

    def _past(self, generations: Iterable[Generation], about_to_go: set[str]) -> Iterator[Generation]:
        """Yield the generations whose submission is in a later one, or is ``about_to_go`` there."""
        every = sorted(set(generations))
        for start in range(0, len(every), BATCH):
            some = every[start : start + BATCH]
            with self._database.transaction() as connection:
                present = table.read_generations(connection, {message_id for message_id, _ in some})
            for message_id, generation in some:
                now = present.get(message_id, -1) + (message_id in about_to_go)
                if now > generation:
                    yield message_id, generation


def _generation(dead_letter: DeadLetter) -> Generation | None:
    if dead_letter.message is None or dead_letter.message.actor_name != ACTOR:
        return None
    return dead_letter.message.message_id, dead_letter.generation
