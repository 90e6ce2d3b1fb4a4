"""Scores ads and writes their verdicts, in batches of concurrent tasks."""

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection

from broker import PermanentError
from db import items, submissions
from db.errors import DatabaseAway, DatabaseUnavailable, RowLocked
from db.judgements import write_unlocked_verdicts, write_verdicts
from db.submissions import Outcome
from scoring import Ad, Model, Verdict
from tasks.database_gate import DatabaseGate
from tasks.judging import judge, log_differences


@dataclass(frozen=True, slots=True)
class Job:
    """An ad to be scored.

    ``message_id`` and ``generation`` name the submission; without a message id nothing is written.
    """

    item_id: int
    message_id: str | None = None
    generation: int = 0


class NothingTaken(DatabaseAway):
    """PostgreSQL was unreachable and the gate closed: the job counts as never taken."""


def _nothing_taken() -> NothingTaken:
    return NothingTaken("PostgreSQL is away")


class Moderator:
    """Does a batch of jobs with one SELECT, one ``predict_proba`` and one UPDATE.

    Parameters:
      statements: Gives a connection on which PostgreSQL commits each statement by itself: no transaction is
        open, and no row is locked, during the scoring.
      model: Returns the model.
      gate: Closed while PostgreSQL is unreachable.
      shadow: Returns the model on trial, or None.
    """

    def __init__(
        self,
        statements: Callable[[], AbstractContextManager[Connection]],
        model: Callable[[], Model],
        gate: DatabaseGate,
        shadow: Callable[[], Model | None] = lambda: None,
    ) -> None:
        self._statements = statements
        self._model = model
        self._gate = gate
        self._shadow = shadow

    def moderate(self, jobs: Sequence[Job]) -> list[Verdict | BaseException]:
        """Return for each job its verdict or its error. An error of one job does not affect the others.

        While PostgreSQL is unreachable every job gets NothingTaken, and the gate is closed. If PostgreSQL
        failed the batch and answers again, each job is tried once more, by itself. So is a job whose row
        another transaction has locked: the batch does not wait for it. If its row stays locked for longer
        than a moment, it gets RowLocked.
        """
        if self._gate.is_closed:
            return [_nothing_taken() for _ in jobs]
        try:
            answers = self._moderate_together(jobs)
            return [
                self._moderate_alone(job) if isinstance(answer, RowLocked) else answer
                for job, answer in zip(jobs, answers, strict=True)
            ]
        except Exception as error:  # noqa: BLE001 - it belongs to one job, which gets it below
            if isinstance(error, DatabaseUnavailable):
                if self._gate.close_if_unreachable():
                    return [NothingTaken(str(error)) for _ in jobs]
            elif len(jobs) == 1:
                return [error]
        # After an outage that has just ended, too: no job pays for it with an attempt.
        return [self._moderate_alone(job) for job in jobs]

    def _moderate_alone(self, job: Job) -> Verdict | BaseException:
        if self._gate.is_closed:
            return _nothing_taken()
        try:
            [answer] = self._moderate_together([job], wait_for_locks=True)
        except Exception as error:  # noqa: BLE001 - the job's answer
            if isinstance(error, DatabaseUnavailable) and self._gate.close_if_unreachable():
                return NothingTaken(str(error))
            return error
        return answer

    def _moderate_together(
        self, jobs: Sequence[Job], *, wait_for_locks: bool = False
    ) -> list[Verdict | BaseException]:
        model = self._model()
        locked: Set[str] = set()
        with self._statements() as connection:
            rows = items.read_ads(connection, {job.item_id for job in jobs})
            ads = {item_id: Ad(*row) for item_id, row in rows.items()}
            verdicts = dict(zip(ads, model.score(list(ads.values())), strict=True))
            if outcomes := _outcomes(jobs, verdicts):
                judged = judge(model, outcomes, ads, self._shadow())
                if wait_for_locks:
                    written = write_verdicts(connection, outcomes, judged, briefly=True)
                else:
                    written, locked = write_unlocked_verdicts(connection, outcomes, judged)
                log_differences(outcomes, judged, written)
        return [_answer(job, verdicts, locked) for job in jobs]


def _answer(job: Job, verdicts: Mapping[int, Verdict], locked: Set[str]) -> Verdict | BaseException:
    if job.message_id is not None and submissions.storable(job.message_id) in locked:
        return RowLocked(f"the row of message {job.message_id} is locked")
    return verdicts.get(job.item_id) or PermanentError(f"There is no ad with item_id {job.item_id}")


def _outcomes(jobs: Sequence[Job], verdicts: dict[int, Verdict]) -> list[Outcome]:
    """Return one outcome for each message; the newest generation's, of a message delivered twice."""
    newest: dict[str, Outcome] = {}
    for job in jobs:
        verdict = verdicts.get(job.item_id)
        if job.message_id is None or verdict is None:
            continue
        key = submissions.storable(job.message_id)
        if key not in newest or newest[key].generation < job.generation:
            newest[key] = Outcome(
                message_id=job.message_id,
                generation=job.generation,
                item_id=job.item_id,
                is_violation=verdict.is_violation,
                probability=verdict.probability,
            )
    return list(newest.values())
