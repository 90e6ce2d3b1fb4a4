"""The base classes of bodies, and the types of their fields."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from db.judgements import Decision
from db.submissions import MAX_ID

__all__ = ["Decision", "Id", "ItemId", "Probability", "RequestBody", "ResponseBody", "TaskId", "Timestamp"]

_SUFFIX = "Body"

Id = Annotated[int, Field(ge=1, le=MAX_ID, json_schema_extra={"format": "int64"})]
TaskId = Id
ItemId = Id
Probability = Annotated[float, Field(ge=0, le=1)]
#: An aware time; in JSON, RFC 3339 in UTC.
Timestamp = Annotated[
    datetime,
    PlainSerializer(lambda at: at.astimezone(UTC).isoformat(), return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def component_name(name: str) -> str:
    """Return the name of a model's component in the OpenAPI document."""
    return name.removesuffix(_SUFFIX)


class RequestBody(BaseModel):
    """A body that the API takes. Further keys are ignored."""

    model_config = ConfigDict(model_title_generator=lambda model: component_name(model.__name__))


class ResponseBody(BaseModel):
    """A body that the API returns: these keys, in this order, and no others.

    It is validated from an object with attributes of the same names; ``validation_alias`` names another
    attribute.
    """

    model_config = ConfigDict(
        extra="forbid",
        from_attributes=True,
        model_title_generator=lambda model: component_name(model.__name__),
    )
