"""Explaining the verdict of a submission."""

from dataclasses import dataclass

from db import items, submissions
from db.judgements import Decision, Judgement, read_judgement
from db.submissions import Submission
from scoring import Ad, Feature, NotExplainable, Part
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
class ExplainedVerdict:
    """The verdict of a submission, and its explanation by the model of this process.

    ``verdict`` names the model and thresholds that gave the verdict; None where no judgement was kept.
    """

    task_id: int
    is_violation: bool | None
    probability: float | None
    verdict: Judgement | None
    explanation: ModelExplanation


class Explainer:
    """Explains verdicts. Thread-safe."""

    def __init__(self, database: Database, predictor: Predictor) -> None:
        self._database = database
        self._predictor = predictor

    def explain(self, task_id: int) -> ExplainedVerdict:
        """Explain the verdict of a submission by its ad's present text and the model of this process.

        Another model may have given the verdict: the judgement names it. Blocks for tens of milliseconds;
        the first call loads the model.

        Raises:
          NoSuchTask: There is no such submission.
          NothingToExplain: It has no verdict, its ad is gone, or the model in use reads no text.
          ModelUnavailable: There is no model.
          DatabaseUnavailable: PostgreSQL cannot be used now.
        """
        submission, ad, judgement = self._read(task_id)
        return ExplainedVerdict(
            task_id=submission.task_id,
            is_violation=submission.is_violation,
            probability=submission.probability,
            verdict=judgement,
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

    def _read(self, task_id: int) -> tuple[Submission, Ad, Judgement | None]:
        with self._database.transaction() as connection:
            submission = submissions.read_by_task_ids(connection, [task_id]).get(task_id)
            if submission is None:
                raise NoSuchTask(f"There is no task with task_id {task_id}")
            if submission.status != "completed":
                raise NothingToExplain(f"Task {task_id} is {submission.status}: it has no verdict to explain")
            row = items.read_ads(connection, [submission.item_id]).get(submission.item_id)
            judgement = read_judgement(connection, task_id)
        if row is None:
            raise NothingToExplain(f"Ad {submission.item_id} is gone, and only its text explains a verdict")
        return submission, Ad(*row), judgement
