"""The bodies that the API takes and gives, for its OpenAPI document; a test holds real ones against them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from db.submissions import MAX_ID

TaskId = Annotated[int, Field(ge=1, le=MAX_ID)]
ItemId = Annotated[int, Field(ge=1, le=MAX_ID)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SubmissionRequest(BaseModel):
    """Which ad to moderate; further keys are ignored."""

    item_id: ItemId


class Accepted(_Body):
    task_id: TaskId
    status: Literal["pending"]
    message: Literal["Moderation request accepted"]


class Pending(_Body):
    task_id: TaskId
    status: Literal["pending"]
    is_violation: None
    probability: None


class Completed(_Body):
    task_id: TaskId
    status: Literal["completed"]
    is_violation: bool
    probability: Annotated[float, Field(ge=0, le=1)]


class Failed(_Body):
    task_id: TaskId
    status: Literal["failed"]
    is_violation: None
    probability: None
    error: str


class Alive(_Body):
    status: Literal["alive"]


class Ready(_Body):
    """``degraded``: requests are answered, but what ``missing`` names is away."""

    status: Literal["ready", "degraded"]
    missing: Annotated[dict[str, str], Field(description="why, by name: only kafka can be missing here")]


class Problem(_Body):
    """RFC 9457 problem details."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
