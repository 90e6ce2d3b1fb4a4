"""The bodies of ads and of their verdicts."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from api.schemas.base import Id, ItemId, Probability, RequestBody, ResponseBody
from api.schemas.submitting import MAX_BULK
from db.submissions import MAX_INTEGER

MAX_NAME_CHARACTERS = 1_000
MAX_DESCRIPTION_CHARACTERS = 100_000


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not hold the character NUL, which PostgreSQL cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must not hold half a surrogate pair, which is no character") from error
    return text


_STORABLE = AfterValidator(_storable), Field(json_schema_extra={"pattern": "^[^\\u0000]*$"})
# The length is checked first: behind a validator, pydantic would speak of items.
Name = Annotated[str, Field(max_length=MAX_NAME_CHARACTERS), *_STORABLE]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARACTERS), *_STORABLE]


class AdBody(RequestBody):
    """One classified ad with the known properties of its seller."""

    item_id: ItemId
    seller_id: Id
    is_verified_seller: bool
    name: Name
    description: Description
    category: Annotated[int, Field(ge=0, le=100)]
    images_qty: Annotated[int, Field(ge=0, le=MAX_INTEGER)]


class AdsBody(RequestBody):
    """Ads to store, all or none. One that is given twice is stored as it was given last."""

    items: Annotated[list[AdBody], Field(min_length=1, max_length=MAX_BULK)]


class StoredAdBody(ResponseBody):
    item_id: ItemId
    status: Literal["created", "updated"]


class StoredAdsBody(ResponseBody):
    results: list[StoredAdBody]


class VerdictBody(ResponseBody):
    is_violation: bool
    probability: Probability
