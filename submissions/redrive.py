"""Redriving failed submissions with their dead letters: ``python -m submissions.redrive --help``.

A failed submission has a row and a dead letter in Kafka. A redrive first updates the row, in one
transaction: pending, next generation, due to be published. The outbox publishes it. Then the redrive
  discards every dead letter whose
submission has reached a later generation, whoever redrove that submission. An interrupted redrive can
therefore be repeated, and ends in the same state.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dramatiq.errors import BrokerConnectionError

from broker import DeadLetter, KafkaBroker
from broker.dead_letters import caller
from db import redrive as table
from db.errors import DatabaseError
from db.redrive import FailedSubmission
from db.submissions import is_id
from settings import SettingsRefused, get_settings
from submissions.broker_factory import make_broker
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
        with ``by`` and ``reason``; ``broker.dead_letter_queue.history`` records the discarded dead letters.

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
                    chosen.intersection_update(table.redrive(connection, chosen, by=by, reason=reason))
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


def main() -> int | str:
    """Run the command. Exit codes: 0 done; 1 a server was unreachable, repeat it; 2 bad arguments."""
    given = _arguments()
    selection = Selection(given.task_ids or None, given.since, given.until)
    try:
        settings = get_settings()
    except SettingsRefused as error:
        return str(error)
    broker = make_broker(settings)
    redriver = Redriver(Database(settings), broker)
    try:
        done = redriver.redrive(selection, reason=given.reason, by=given.by, dry_run=not given.apply)
    except (DatabaseError, BrokerConnectionError) as error:
        return f"Not finished, run it again: {error}"
    finally:
        broker.close()
    sys.stdout.write(_report(done, given.task_ids))
    return 0


def _report(done: Redriven, asked_for: Sequence[int]) -> str:
    would = "would be" if done.dry_run else "were"
    lines = [f"{len(done.task_ids)} submissions {would} put back to pending"]
    lines += [f"  {count:6}  {error}" for error, count in done.errors.most_common()]
    if left := sorted(set(asked_for) - set(done.task_ids)):
        lines.append(f"not failed, and left as they are: {', '.join(map(str, left))}")
    lines.append(f"{done.dead_letters} dead letters {would} discarded")
    if done.dry_run:
        lines.append('Nothing was changed. To do it, add --apply --reason "..."')
    return "".join(f"{line}\n" for line in lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m submissions.redrive",
        description="Put failed submissions back to pending and have them moderated again. "
        "Only says what it would do, unless told to --apply.",
    )
    parser.add_argument("task_ids", nargs="*", type=_task_id, metavar="TASK_ID", help="failed submissions")
    parser.add_argument("--all", action="store_true", help="all failed submissions, instead of named ones")
    parser.add_argument(
        "--since", type=_time, metavar="TIME", help="that failed then or later, as in 2026-01-31T12:00Z"
    )
    parser.add_argument("--until", type=_time, metavar="TIME", help="that failed before then")
    parser.add_argument("--reason", default="", help="why; it is kept")
    parser.add_argument("--by", help="who; this system's user and host by default")
    parser.add_argument("--apply", action="store_true", help="do it")
    given = parser.parse_args()
    if bool(given.task_ids) == given.all:
        parser.error("name the submissions by their task ids, or say --all")
    if given.apply and not given.reason.strip():
        parser.error("--apply needs --reason, which is kept with what was done")
    return given


def _task_id(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not is_id(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no task id")
    return number


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-01-31T12:00Z") from error
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone; UTC is written 2026-01-31T12:00Z")
    return moment


if __name__ == "__main__":
    sys.exit(main())
