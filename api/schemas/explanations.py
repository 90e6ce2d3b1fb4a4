"""The body of an explanation, validated from ``submissions.explaining.ExplainedVerdict``."""

from typing import Literal

from api.schemas.base import Decision, Probability, ResponseBody, TaskId
from api.schemas.results import VerdictOriginBody


class TextPartBody(ResponseBody):
    """Characters ``start`` to ``end`` of a field, and what they added to the log-odds of a violation."""

    field: Literal["name", "description"]
    start: int
    end: int
    text: str
    effect: float


class ModelFeatureBody(ResponseBody):
    """A column of the model that is not zero, and what it added to the log-odds of the rule."""

    name: str
    effect: float


class ModelExplanationBody(ResponseBody):
    """What this process's model says of the ad as it is now; ``rule`` is the likeliest one to be broken."""

    model_version: str
    probability: Probability
    decision: Decision
    rule: str
    rules: dict[str, Probability]
    parts: list[TextPartBody]
    features: list[ModelFeatureBody]


class ExplainedVerdictBody(ResponseBody):
    """A verdict and why; ``verdict`` is null where it was not kept how the verdict was reached."""

    task_id: TaskId
    is_violation: bool
    probability: Probability
    verdict: VerdictOriginBody | None
    explanation: ModelExplanationBody
