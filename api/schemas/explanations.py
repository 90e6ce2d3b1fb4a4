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


class ExplainedAdBody(ResponseBody):
    """The ad that is explained; ``is_scored`` is null where the verdict does not say which text it is of."""

    name: str
    description: str
    category: int
    images_qty: int
    is_verified_seller: bool
    ad_hash: str
    is_scored: bool | None
    is_current: bool


class ModelExplanationBody(ResponseBody):
    """``ad``, explained by this process's model; ``rule`` is the likeliest broken one."""

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
    ad: ExplainedAdBody
    explanation: ModelExplanationBody
