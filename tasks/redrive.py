"""Redriving failed submissions, with their dead letters: ``python -m tasks.redrive --help``.

Two places say that a submission failed: its row, and its dead letter in Kafka. The row goes first, in one
transaction: pending, next generation, due to be sent; the outbox sends it. Then every dead letter is put away
whose submission is further on than it is, whoever redrove that. So wherever it is interrupted, running it
again ends in the same state.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dramatiq.errors import BrokerConnectionError

from broker import DeadLetter
from broker.dead_letters import caller
from db import redrive as table
from db.errors import DatabaseError
from db.redrive import Failed
from db.submissions import is_id
from tasks.message import ACTOR, QUEUE
from tasks.resources import database
from tasks.wiring import broker

#: Submissions in one transaction, and message ids in one SELECT.
BATCH = 500

#: A message in one of its lives: its id, and how often it had been redriven.
Generation = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which failed submissions: all that are given have to hold. Times are aware.

    Attributes:
      task_ids: These; all when None.
      since, until: Those that failed at or after, and before.
    """

    task_ids: Sequence[int] | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(slots=True)
class Redriven:
    """What a redrive did, or, as a dry run, would do.

    Attributes:
      task_ids: The submissions that were put back.
      errors: How many of them had failed with which error.
      letters: How many dead letters were put away.
    """

    dry_run: bool
    task_ids: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    letters: int = 0


def redrive(
    selection: Selection, *, reason: str = "", by: str | None = None, dry_run: bool = True
) -> Redriven:
    """Put failed submissions back to pending, have them sent again, and put their dead letters away.

    Nothing happens to what is not failed. The failure stays readable in the submission's history, with
    ``by`` and ``reason``; what was done about the dead letters is in ``broker.dead_letter_queue.history``.

    Parameters:
      reason: Why. Needed unless it is a dry run.
      by: Who; this system's user and host by default.
      dry_run: Only say what would be done.

    Raises:
      ValueError: without a reason.
      DatabaseError, BrokerConnectionError: what was done before stays done: run it again.
    """
    if not dry_run and not reason.strip():
        raise ValueError("a redrive needs a reason, which is kept with what was done")
    by = caller() if by is None else by
    done = Redriven(dry_run)
    redriven: set[str] = set()
    for page in _pages(selection):
        chosen = {one.task_id for one in page}
        if not dry_run:
            with database() as connection:
                chosen.intersection_update(table.redrive(connection, chosen, by=by, reason=reason))
        for one in page:
            if one.task_id in chosen:
                done.task_ids.append(one.task_id)
                done.errors[one.error_message] += 1
                redriven.add(one.message_id)
    done.letters = _put_letters_away(redriven if dry_run else set(), reason=reason, by=by, dry_run=dry_run)
    return done


def _pages(selection: Selection) -> Iterator[list[Failed]]:
    """The failed submissions, page by page upwards: one that fails again meanwhile is not met again."""
    after = 0
    while True:
        with database() as connection:
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


def _put_letters_away(about_to_go: set[str], *, reason: str, by: str, dry_run: bool) -> int:
    """Put away the dead letters that their submissions have left behind; return their number.

    By the generation, and not by the message's id alone: the redriven message may have failed again by now,
    and that dead letter is news.
    """
    past = set(_left_behind(_lives(), about_to_go))
    if not past:
        return 0
    resolved = broker.discard(
        QUEUE,
        dry_run=dry_run,
        reason=f"the submission was redriven: {reason}",
        by=by,
        where=lambda letter: _life(letter) in past,
    )
    return resolved.selected


def _lives() -> Iterator[Generation]:
    for letter in broker.dead_letters(QUEUE, actor=ACTOR):
        if (life := _life(letter)) is not None:
            yield life


def _life(letter: DeadLetter) -> Generation | None:
    if letter.message is None or letter.message.actor_name != ACTOR:
        return None
    return letter.message.message_id, letter.generation


def _left_behind(lives: Iterable[Generation], about_to_go: set[str]) -> Iterator[Generation]:
    """Those whose submission is in a later generation, or is ``about_to_go`` there."""
    every = sorted(set(lives))
    for start in range(0, len(every), BATCH):
        some = every[start : start + BATCH]
        with database() as connection:
            generations = table.read_generations(connection, {message_id for message_id, _ in some})
        for message_id, generation in some:
            now = generations.get(message_id, -1) + (message_id in about_to_go)
            if now > generation:
                yield message_id, generation


def main() -> int | str:
    """Exit codes: 0 done; 1 something was away, run it again; 2 bad arguments."""
    given = _arguments()
    selection = Selection(given.task_ids or None, given.since, given.until)
    try:
        done = redrive(selection, reason=given.reason, by=given.by, dry_run=not given.apply)
    except (DatabaseError, BrokerConnectionError) as error:
        return f"Not finished, run it again: {error}"
    finally:
        broker.close()
    sys.stdout.write(_told(done, given.task_ids))
    return 0


def _told(done: Redriven, asked_for: Sequence[int]) -> str:
    would = "would be" if done.dry_run else "were"
    lines = [f"{len(done.task_ids)} submissions {would} put back to pending"]
    lines += [f"  {count:6}  {error}" for error, count in done.errors.most_common()]
    if left := sorted(set(asked_for) - set(done.task_ids)):
        lines.append(f"not failed, and left as they are: {', '.join(map(str, left))}")
    lines.append(f"{done.letters} dead letters {would} put away")
    if done.dry_run:
        lines.append('Nothing was changed. To do it, add --apply --reason "..."')
    return "".join(f"{line}\n" for line in lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.redrive",
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
