"""The bodies that the API takes and gives. The first are checked against these; a test holds real answers
against the others."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from db.submissions import MAX_ID, Status

#: Ads in one bulk request.
MAX_BULK = 1_000
MAX_NAME_CHARACTERS = 1_000
MAX_DESCRIPTION_CHARACTERS = 100_000

TaskId = Annotated[int, Field(ge=1, le=MAX_ID)]
ItemId = Annotated[int, Field(ge=1, le=MAX_ID)]
Probability = Annotated[float, Field(ge=0, le=1)]
Decision = Literal["approve", "review", "reject"]


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not hold the character NUL, which PostgreSQL cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must not hold half a surrogate pair, which is no character") from error
    return text


Text = Annotated[str, AfterValidator(_storable)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


# ------------------------------------------------------------------ taken; further keys are ignored


class SubmissionRequest(BaseModel):
    """Which ad to moderate."""

    item_id: ItemId


class BulkSubmissionRequest(BaseModel):
    """Which ads to moderate; an id given twice is two tasks."""

    item_ids: Annotated[list[ItemId], Field(min_length=1, max_length=MAX_BULK)]


class Ad(BaseModel):
    """One classified ad with what is known of its seller."""

    item_id: ItemId
    seller_id: Annotated[int, Field(ge=1, le=MAX_ID)]
    is_verified_seller: bool
    name: Annotated[Text, Field(max_length=MAX_NAME_CHARACTERS)]
    description: Annotated[Text, Field(max_length=MAX_DESCRIPTION_CHARACTERS)]
    category: Annotated[int, Field(ge=0, le=100)]
    images_qty: Annotated[int, Field(ge=0, le=MAX_ID)]


class Ads(BaseModel):
    """Ads to store, all or none."""

    items: Annotated[list[Ad], Field(min_length=1, max_length=MAX_BULK)]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        item_ids: set[int] = set()
        sellers: dict[int, bool] = {}
        for ad in self.items:
            if ad.item_id in item_ids:
                raise ValueError(f"item_id {ad.item_id} is given more than once")
            item_ids.add(ad.item_id)
            if sellers.setdefault(ad.seller_id, ad.is_verified_seller) != ad.is_verified_seller:
                raise ValueError(f"seller {ad.seller_id} is verified in one ad and not in another")
        return self


# ------------------------------------------------------------------ given


class Accepted(_Body):
    task_id: TaskId
    status: Literal["pending"]
    message: Literal["Moderation request accepted"]


class BulkSubmission(_Body):
    item_id: ItemId
    task_id: TaskId | None
    status: Annotated[Literal["pending", "not_found"], Field(description="not_found: there is no such ad")]


class BulkAccepted(_Body):
    """A status for each id, in the order of the request."""

    accepted: Annotated[int, Field(ge=0, le=MAX_BULK)]
    results: list[BulkSubmission]


class Pending(_Body):
    task_id: TaskId
    status: Literal["pending"]
    is_violation: None
    probability: None


class Completed(_Body):
    task_id: TaskId
    status: Literal["completed"]
    is_violation: bool
    probability: Probability


class Failed(_Body):
    task_id: TaskId
    status: Literal["failed"]
    is_violation: None
    probability: None
    error: str


class Cancelled(_Body):
    task_id: TaskId
    status: Literal["cancelled"]
    is_violation: None
    probability: None


class ListedResult(_Body):
    task_id: TaskId
    item_id: ItemId
    status: Status
    is_violation: bool | None
    probability: Probability | None
    error: str | None
    created_at: datetime
    processed_at: datetime | None


class Page(_Body):
    """Submissions, newest first. ``next_cursor`` asks for the page that follows; null on the last one."""

    results: list[ListedResult]
    next_cursor: str | None


class VerdictOrigin(_Body):
    """By which model and thresholds the verdict was reached."""

    model_version: str
    decision: Decision
    threshold: Probability
    approve_below: Probability
    reject_from: Probability


class PastOutcome(_Body):
    """What an earlier generation came to; who redrove it, and why, where that is known."""

    generation: Annotated[int, Field(ge=0)]
    status: Status
    is_violation: bool | None
    probability: Probability | None
    error: str | None
    processed_at: datetime | None
    replaced_at: datetime
    redriven_by: str | None
    reason: str | None


class SubmissionDetails(ListedResult):
    """All that is known of a submission. Keys may be added."""

    message_id: Annotated[str, Field(description="of the message in Kafka")]
    generation: Annotated[int, Field(ge=0, description="how often it was redriven")]
    is_published: Annotated[bool, Field(description="false: its message is still to reach Kafka")]
    verdict: Annotated[VerdictOrigin | None, Field(description="null where it was not kept, or is none")]
    history: Annotated[list[PastOutcome], Field(description="of earlier generations, oldest first")]


class Verdict(_Body):
    is_violation: bool
    probability: Probability


class StoredAd(_Body):
    item_id: ItemId
    status: Literal["created", "updated"]


class StoredAds(_Body):
    results: list[StoredAd]


class Alive(_Body):
    status: Literal["alive"]


class Ready(_Body):
    """``degraded``: requests are answered, but what ``missing`` names is away."""

    status: Literal["ready", "degraded"]
    missing: Annotated[
        dict[str, str],
        Field(description="why, by name: kafka (tasks are accepted and wait), model (no verdicts at once)"),
    ]


class Problem(_Body):
    """RFC 9457 problem details."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
