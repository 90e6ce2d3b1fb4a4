"""The bodies of submitting."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.base import ItemId, RequestBody, ResponseBody, TaskId

#: Ads in one bulk request.
MAX_BULK = 1_000


class BulkSubmissionRequestBody(RequestBody):
    """The ads to moderate; an id given twice is two tasks."""

    item_ids: Annotated[list[ItemId], Field(min_length=1, max_length=MAX_BULK)]


class AcceptedBody(ResponseBody):
    task_id: TaskId
    status: Literal["pending"]
    message: Literal["Moderation request accepted"]


class BulkSubmissionBody(ResponseBody):
    item_id: ItemId
    task_id: TaskId | None
    status: Annotated[Literal["pending", "not_found"], Field(description="not_found: there is no such ad")]


class BulkAcceptedBody(ResponseBody):
    """A status for each id, in the order of the request."""

    accepted: Annotated[int, Field(ge=0, le=MAX_BULK)]
    results: list[BulkSubmissionBody]
