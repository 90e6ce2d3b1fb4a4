"""The bodies of submissions and their outcomes.

They are validated from the rows that ``db`` returns: ``db.submissions.Submission``,
``db.judgements.Judgement`` and ``db.history.PastOutcome``.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, TypeAdapter

from api.schemas.base import Decision, ItemId, Probability, ResponseBody, TaskId, Timestamp
from db.history import PastOutcome
from db.judgements import Judgement
from db.submissions import Status, Submission


class PendingBody(ResponseBody):
    task_id: TaskId
    status: Literal["pending"]
    is_violation: None
    probability: None


class CompletedBody(ResponseBody):
    task_id: TaskId
    status: Literal["completed"]
    is_violation: bool
    probability: Probability


class FailedBody(ResponseBody):
    task_id: TaskId
    status: Literal["failed"]
    is_violation: None
    probability: None
    error: Annotated[str, Field(validation_alias="error_message")]


class CancelledBody(ResponseBody):
    task_id: TaskId
    status: Literal["cancelled"]
    is_violation: None
    probability: None


#: The result of a submission: the body for its status.
RESULT = TypeAdapter[PendingBody | CompletedBody | FailedBody | CancelledBody](
    Annotated[PendingBody | CompletedBody | FailedBody | CancelledBody, Discriminator("status")]
)


class ListedResultBody(ResponseBody):
    task_id: TaskId
    item_id: ItemId
    status: Status
    is_violation: bool | None
    probability: Probability | None
    error: Annotated[str | None, Field(validation_alias="error_message")]
    created_at: Timestamp
    processed_at: Timestamp | None


class PageBody(ResponseBody):
    """Submissions, newest first. ``next_cursor`` asks for the page that follows; null on the last one."""

    results: list[ListedResultBody]
    next_cursor: str | None


class VerdictOriginBody(ResponseBody):
    """The model and the thresholds of a verdict."""

    model_version: str
    decision: Decision
    threshold: Probability
    approve_below: Probability
    reject_from: Probability
    ad_hash: Annotated[str | None, Field(description="of the scored ad; null for an old verdict")]


class PastOutcomeBody(ResponseBody):
    """The outcome of an earlier generation, with the author and the reason of its redrive where they are
    known.
    """

    generation: Annotated[int, Field(ge=0)]
    status: Status
    is_violation: bool | None
    probability: Probability | None
    error: Annotated[str | None, Field(validation_alias="error_message")]
    processed_at: Timestamp | None
    replaced_at: Timestamp
    redriven_by: str | None
    reason: str | None


class SubmissionDetailsBody(ListedResultBody):
    """A submission in full. Keys may be added."""

    message_id: Annotated[str, Field(description="of the message in Kafka")]
    generation: Annotated[int, Field(ge=0, description="how often it was redriven")]
    is_published: Annotated[
        bool,
        BeforeValidator(lambda publish_after: publish_after is None),
        Field(validation_alias="publish_after", description="false: its message is still to reach Kafka"),
    ]
    client_id: Annotated[
        TaskId | None, Field(description="of the client that submitted it; null without an API key")
    ]
    verdict: Annotated[VerdictOriginBody | None, Field(description="null where it was not kept, or is none")]
    is_stale: Annotated[
        bool | None,
        Field(description="whether the ad was edited since it was scored; null where that is not known"),
    ]
    history: Annotated[list[PastOutcomeBody], Field(description="of earlier generations, oldest first")]


def details_body(
    submission: Submission,
    judgement: Judgement | None,
    history: Sequence[PastOutcome],
    *,
    is_stale: bool | None = None,
) -> SubmissionDetailsBody:
    """Return the body of a submission in full."""
    row = {field.name: getattr(submission, field.name) for field in fields(submission)}
    return SubmissionDetailsBody.model_validate(
        {**row, "verdict": judgement, "is_stale": is_stale, "history": history}
    )
