"""Verdicts at once, which are not stored."""

from sanic import HTTPResponse

from api.http.fast_json import FastJSON
from api.http.item_id import item_id_of
from api.http.json_body import body_of
from api.http.parameters import ITEM_ID
from api.http.request import AnyRequest
from api.routes.items import AD_EXAMPLE
from api.routes.operation import (
    BAD_BODY,
    BAD_ID,
    NO_AD,
    NO_MODEL,
    TOO_LARGE,
    Operation,
    calls_of,
    no_such_ad,
    ok,
)
from api.schemas.ads import AdBody, VerdictBody
from db.items import AdFields


async def predict(request: AnyRequest) -> HTTPResponse:
    return await _verdict(request, body_of(request, AdBody))


async def simple_predict(request: AnyRequest) -> HTTPResponse:
    item_id = item_id_of(request)
    ad = await calls_of(request).stored_ad(item_id)
    if ad is None:
        raise no_such_ad(item_id)
    return await _verdict(request, ad)


async def _verdict(request: AnyRequest, ad: AdFields) -> HTTPResponse:
    return FastJSON(VerdictBody.model_validate(await calls_of(request).verdict(ad)))


OPERATIONS = (
    Operation(
        "POST",
        "/predict",
        predict,
        "Score the ad in the body, at once; nothing is stored",
        body=AdBody,
        answers=(ok("The verdict", VerdictBody), TOO_LARGE, BAD_BODY, NO_MODEL),
        scope="submit",
        example=f"curl http://localhost:8000/predict --json {AD_EXAMPLE}",
    ),
    Operation(
        "POST",
        "/simple_predict",
        simple_predict,
        "Score a stored ad, at once; the verdict is not stored",
        parameters=(ITEM_ID,),
        answers=(
            ok("The verdict", VerdictBody),
            NO_AD,
            TOO_LARGE,
            BAD_ID,
            NO_MODEL,
        ),
        scope="submit",
        example="curl -X POST 'http://localhost:8000/simple_predict?item_id=1'",
    ),
)
