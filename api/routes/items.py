"""Storing ads."""

from sanic import HTTPResponse

from api.http.fast_json import FastJSON
from api.http.json_body import body_of
from api.http.request import AnyRequest
from api.routes.operation import AWAY, BAD_BODY, TOO_LARGE, Operation, calls_of, ok
from api.schemas.ads import AdBody, AdsBody, StoredAdBody, StoredAdsBody
from api.schemas.submitting import MAX_BULK


async def store_item(request: AnyRequest) -> HTTPResponse:
    [stored] = await _store(request, [body_of(request, AdBody)])
    return FastJSON(stored)


async def store_items(request: AnyRequest) -> HTTPResponse:
    return FastJSON(StoredAdsBody(results=await _store(request, body_of(request, AdsBody).items)))


async def _store(request: AnyRequest, ads: list[AdBody]) -> list[StoredAdBody]:
    last: dict[int, AdBody] = {}
    for ad in ads:
        last.pop(ad.item_id, None)  # and with it its place: the last word on a seller counts, too
        last[ad.item_id] = ad
    created = await calls_of(request).call(
        lambda application: application.ads.store(list(last.values()), request.caller)
    )
    stored = []
    for ad in ads:
        stored.append(
            StoredAdBody(item_id=ad.item_id, status="created" if ad.item_id in created else "updated")
        )
        created.discard(ad.item_id)
    return stored


AD_EXAMPLE = (
    '\'{"item_id": 1001, "seller_id": 1, "is_verified_seller": false, "name": "Велосипед",'
    ' "description": "Почти новый", "category": 19, "images_qty": 2}\''
)

OPERATIONS = (
    Operation(
        "POST",
        "/items",
        store_item,
        "Store an ad and its seller; one that is there is overwritten",
        body=AdBody,
        answers=(ok("Created or updated", StoredAdBody), TOO_LARGE, BAD_BODY, AWAY),
        scope="items",
        example=f"curl http://localhost:8000/items --json {AD_EXAMPLE}",
    ),
    Operation(
        "POST",
        "/items/bulk",
        store_items,
        f"Store up to {MAX_BULK} ads, all or none",
        body=AdsBody,
        answers=(ok("A status for each, in their order", StoredAdsBody), TOO_LARGE, BAD_BODY, AWAY),
        scope="items",
        example="curl http://localhost:8000/items/bulk --json @ads.json",
    ),
)
