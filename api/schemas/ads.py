"""The bodies of ads and of their verdicts."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

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


Text = Annotated[str, AfterValidator(_storable)]


class AdBody(RequestBody):
    """One classified ad with the known properties of its seller."""

    item_id: ItemId
    seller_id: Id
    is_verified_seller: bool
    name: Annotated[Text, Field(max_length=MAX_NAME_CHARACTERS)]
    description: Annotated[Text, Field(max_length=MAX_DESCRIPTION_CHARACTERS)]
    category: Annotated[int, Field(ge=0, le=100)]
    images_qty: Annotated[int, Field(ge=0, le=MAX_INTEGER)]


class AdsBody(RequestBody):
    """Ads to store, all or none."""

    items: Annotated[list[AdBody], Field(min_length=1, max_length=MAX_BULK)]

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


class StoredAdBody(ResponseBody):
    item_id: ItemId
    status: Literal["created", "updated"]


class StoredAdsBody(ResponseBody):
    results: list[StoredAdBody]


class VerdictBody(ResponseBody):
    is_violation: bool
    probability: Probability
