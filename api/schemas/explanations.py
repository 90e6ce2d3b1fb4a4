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
    """The present ad, explained by this process's model; ``rule`` is the likeliest broken one."""

    model_version: str
    probability: Probability
    decision: Decision
    rule: str
    rules: dict[str, Probability]
    parts: list[TextPartBody]
    features: list[ModelFeatureBody]


class ExplainedVerdictBody(ResponseBody):
    """A verdict and its explanation; ``verdict`` is null without a stored judgement."""

    task_id: TaskId
    is_violation: bool
    probability: Probability
    verdict: VerdictOriginBody | None
    explanation: ModelExplanationBody
