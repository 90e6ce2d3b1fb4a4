"""Explaining the verdict of a submission."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from db import items, submissions
from db.judgements import Decision, Judgement, read_judgement
from db.submissions import Submission
from scoring import Ad, Feature, NotExplainable, Part
from submissions.callers import ANYBODY, Caller
from submissions.database import Database
from submissions.predicting import Predictor


class NothingToExplain(Exception):
    """There is no explanation at present; the text gives the reason."""


class NoSuchTask(NothingToExplain):
    """No submission has this task id."""


@dataclass(frozen=True, slots=True)
class ModelExplanation:
    """The explanation of an ad's score by one model; the fields are those of :class:`scoring.Explanation`."""

    model_version: str
    decision: Decision
    probability: float
    rule: str
    rules: dict[str, float]
    parts: tuple[Part, ...]
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True)
class ExplainedAd:
    """The ad that an explanation is of.

    Attributes:
      ad_hash: See :func:`db.items.ad_hash`.
      is_scored: Whether it is the ad as it was scored; None where the verdict does not say.
      is_current: Whether the ad is still the same.
    """

    name: str
    description: str
    category: int
    images_qty: int
    is_verified_seller: bool
    ad_hash: str
    is_scored: bool | None
    is_current: bool


@dataclass(frozen=True, slots=True)
class ExplainedVerdict:
    """The verdict of a submission, and its explanation by the model of this process.

    ``verdict`` names the model and thresholds that gave the verdict; None where no judgement was kept.
    """

    task_id: int
    is_violation: bool | None
    probability: float | None
    verdict: Judgement | None
    ad: ExplainedAd
    explanation: ModelExplanation


class Explainer:
    """Explains verdicts. Thread-safe."""

    def __init__(self, database: Database, predictor: Predictor) -> None:
        self._database = database
        self._predictor = predictor

    def explain_each(self, wanted: Sequence[tuple[int, Caller]]) -> list[ExplainedVerdict | Exception]:
        """Explain verdicts as :meth:`explain` does; an error is the answer for its task alone."""
        answers: list[ExplainedVerdict | Exception] = []
        for task_id, caller in wanted:
            try:
                answers.append(self.explain(task_id, caller))
            except Exception as error:  # noqa: BLE001 - the task's answer
                answers.append(error)
        return answers

    def explain(self, task_id: int, caller: Caller = ANYBODY) -> ExplainedVerdict:
        """Explain the verdict of a submission by the ad as it was scored and the model of this process.

        Another model may have given the verdict: the judgement names it. An old verdict does not say which
        text it is of; the ad's present text explains it. Blocks for tens of milliseconds; the first call
        loads the model.

        Raises:
          NoSuchTask: There is no such submission, or the caller does not see it.
          NothingToExplain: It has no verdict, its ad is gone and was not kept, or the model in use reads no
            text.
          ModelUnavailable: There is no model.
          DatabaseUnavailable: PostgreSQL cannot be used now.
        """
        submission, ad, explained, judgement = self._read(task_id, caller)
        return ExplainedVerdict(
            task_id=submission.task_id,
            is_violation=submission.is_violation,
            probability=submission.probability,
            verdict=judgement,
            ad=explained,
            explanation=self._explain(ad),
        )

    def _explain(self, ad: Ad) -> ModelExplanation:
        model = self._predictor.model()
        try:
            explanation = model.explain(ad)
        except NotExplainable as error:
            raise NothingToExplain(str(error)) from error
        return ModelExplanation(
            model_version=model.version,
            decision=model.decide(explanation.probability, ad.category),
            probability=explanation.probability,
            rule=explanation.rule,
            rules=explanation.rules,
            parts=explanation.parts,
            features=explanation.features,
        )

    def _read(self, task_id: int, caller: Caller) -> tuple[Submission, Ad, ExplainedAd, Judgement | None]:
        with self._database.transaction() as connection:
            submission = submissions.read_by_task_ids(connection, [task_id]).get(task_id)
            if submission is None or not caller.sees(submission.client_id):
                raise NoSuchTask(f"There is no task with task_id {task_id}")
            if submission.status != "completed":
                raise NothingToExplain(f"Task {task_id} is {submission.status}: it has no verdict to explain")
            row = items.read_ads(connection, [submission.item_id]).get(submission.item_id)
            judgement = read_judgement(connection, task_id)
            current = None if row is None else Ad(*row)
            scored_hash = judgement.ad_hash if judgement else None
            scored = None
            if scored_hash is not None:
                scored = _scored(connection, submission.item_id, current, scored_hash)
        ad = scored or current
        if ad is None:
            raise NothingToExplain(f"Ad {submission.item_id} is gone, and only its text explains a verdict")
        is_scored = None if scored_hash is None else scored is not None
        return submission, ad, _explained(ad, current, is_scored=is_scored), judgement


def _scored(connection: Connection, item_id: int, current: Ad | None, scored_hash: str) -> Ad | None:
    """Return the ad as it was scored, or None where it was not kept."""
    for ad in (current, *(Ad(*row) for row in items.read_versions(connection, item_id))):
        # Edits keep the ad without its seller, who may have been either.
        for is_verified_seller in (True, False):
            if ad is not None:
                candidate = replace(ad, is_verified_seller=is_verified_seller)
                if items.ad_hash(candidate) == scored_hash:
                    return candidate
    return None


def _explained(ad: Ad, current: Ad | None, *, is_scored: bool | None) -> ExplainedAd:
    explained = items.ad_hash(ad)
    return ExplainedAd(
        name=ad.name,
        description=ad.description,
        category=ad.category,
        images_qty=ad.images_qty,
        is_verified_seller=ad.is_verified_seller,
        ad_hash=explained,
        is_scored=is_scored,
        is_current=current is not None and items.ad_hash(current) == explained,
    )
