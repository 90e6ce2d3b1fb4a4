"""Why a submission's verdict is what it is, for somebody who asks."""

from dataclasses import asdict
from typing import Any

from db import items, submissions
from db.judgements import Judgement, read_judgement
from scoring import Ad, Model, ModelRefused, NotExplainable
from tasks.prediction import ModelUnavailable
from tasks.resources import database, model


class NothingToExplain(Exception):
    """There is no such explanation (now); the text says why."""


class NoSuchTask(NothingToExplain):
    """No submission has this task id."""


def explain_verdict(task_id: int) -> tuple[dict[str, Any], Judgement | None]:
    """Explain a submission's verdict by the ad as it is now and the model of this process, which need not be
    the one that gave the verdict: the judgement says which did, None where that was not kept.

    Blocks, for tens of milliseconds; the first call loads the model.

    Raises:
      NoSuchTask: there is no such submission.
      NothingToExplain: it has no verdict, its ad is gone, or the model in use reads no text.
      ModelUnavailable: as it says.
      DatabaseUnavailable: as it says.
    """
    with database() as connection:
        submission = submissions.read_by_task_ids(connection, [task_id]).get(task_id)
        if submission is None:
            raise NoSuchTask(f"There is no task with task_id {task_id}")
        if submission.status != "completed":
            raise NothingToExplain(f"Task {task_id} is {submission.status}: it has no verdict to explain")
        row = items.read_ads(connection, [submission.item_id]).get(submission.item_id)
        judgement = read_judgement(connection, task_id)
    if row is None:
        raise NothingToExplain(f"Ad {submission.item_id} is gone, and only its text explains a verdict")
    explained = {
        "task_id": task_id,
        "is_violation": submission.is_violation,
        "probability": submission.probability,
        "explanation": _explain(Ad(*row)),
    }
    return explained, judgement


def _explain(ad: Ad) -> dict[str, Any]:
    loaded = _model()
    try:
        explanation = loaded.explain(ad)
    except NotExplainable as error:
        raise NothingToExplain(str(error)) from error
    return {
        "model_version": loaded.version,
        "probability": explanation.probability,
        "decision": loaded.decide(explanation.probability, ad.category),
        "rule": explanation.rule,
        "rules": explanation.rules,
        "parts": [asdict(part) for part in explanation.parts],
        "features": [asdict(feature) for feature in explanation.features],
    }


def _model() -> Model:
    try:
        return model()
    except ModelRefused as refused:
        raise ModelUnavailable(str(refused)) from refused
