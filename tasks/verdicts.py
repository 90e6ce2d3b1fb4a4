"""Scores ads and writes their verdicts down, as many at once as there are."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection

from broker import PermanentError
from db import items, submissions
from db.errors import DatabaseAway, DatabaseUnavailable
from db.judgements import write_verdicts
from db.submissions import Outcome
from scoring import Ad, Model, Verdict
from tasks.intake import Intake
from tasks.judging import judge, log_differences


@dataclass(frozen=True, slots=True)
class Job:
    """An ad to be scored.

    ``message_id`` and ``generation`` name the submission that the verdict is for; None when it is for the
    caller alone.
    """

    item_id: int
    message_id: str | None = None
    generation: int = 0


class NothingTaken(DatabaseAway):
    """PostgreSQL was away, and the intake closed: the job counts as never taken, whenever its caller asks."""


class Moderator:
    """Does jobs, a batch with one SELECT, one ``predict_proba`` and one UPDATE.

    Parameters:
      statements: gives a connection on which each statement is committed by itself: no transaction is open,
        and no row locked, while ads are scored.
      model: gives the model.
    """

    def __init__(
        self,
        statements: Callable[[], AbstractContextManager[Connection]],
        model: Callable[[], Model],
        intake: Intake,
    ) -> None:
        self._statements = statements
        self._model = model
        self._intake = intake

    def moderate(self, jobs: Sequence[Job]) -> list[Verdict | BaseException]:
        """Return for each job its verdict, or the error that its caller is to get: whatever one job runs
        into, the others do not. Where PostgreSQL is away, all of them get NothingTaken and the intake is
        closed."""
        if self._intake.is_closed:
            return [NothingTaken("PostgreSQL is away") for _ in jobs]
        try:
            return self._moderate_together(jobs)
        except Exception as error:  # noqa: BLE001 - it is one job's, which gets it below
            if isinstance(error, DatabaseUnavailable) and self._intake.close_if_away():
                return [NothingTaken(str(error)) for _ in jobs]
            if len(jobs) == 1:
                return [error]
        return [answer for job in jobs for answer in self.moderate([job])]

    def _moderate_together(self, jobs: Sequence[Job]) -> list[Verdict | BaseException]:
        model = self._model()
        with self._statements() as connection:
            rows = items.read_ads(connection, {job.item_id for job in jobs})
            ads = {item_id: Ad(*row) for item_id, row in rows.items()}
            verdicts = dict(zip(ads, model.score(list(ads.values())), strict=True))
            if outcomes := _outcomes(jobs, verdicts):
                _write(connection, model, outcomes, ads)
        return [
            verdicts.get(job.item_id) or PermanentError(f"There is no ad with item_id {job.item_id}")
            for job in jobs
        ]


def _write(connection: Connection, model: Model, outcomes: Sequence[Outcome], ads: Mapping[int, Ad]) -> None:
    """Write the verdicts, and how those were reached that are new."""
    judged = judge(model, outcomes, ads)
    log_differences(outcomes, judged, write_verdicts(connection, outcomes, judged))


def _outcomes(jobs: Sequence[Job], verdicts: dict[int, Verdict]) -> list[Outcome]:
    """One outcome for each message: of one that was delivered twice at the same time, the newest
    generation's."""
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
