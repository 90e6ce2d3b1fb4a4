"""The body of an explanation, for the OpenAPI document."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from api.schemas import Decision, Probability, TaskId, VerdictOrigin


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Body):
    """Characters ``start`` to ``end`` of a field, and what they added to the log-odds of a violation."""

    field: Literal["name", "description"]
    start: int
    end: int
    text: str
    effect: float


class ModelFeature(_Body):
    """A column of the model that is not zero, and what it added to the log-odds of the rule."""

    name: str
    effect: float


class ModelExplanation(_Body):
    """What this process's model says of the ad as it is now; ``rule`` is the likeliest one to be broken."""

    model_version: str
    probability: Probability
    decision: Decision
    rule: str
    rules: dict[str, Probability]
    parts: list[TextPart]
    features: list[ModelFeature]


class ExplainedVerdict(_Body):
    """A verdict and why; ``verdict`` is null where it was not kept how the verdict was reached."""

    task_id: TaskId
    is_violation: bool
    probability: Probability
    verdict: VerdictOrigin | None
    explanation: ModelExplanation
