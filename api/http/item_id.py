"""The ad that a request names, in the query string or in the body."""

import re

from pydantic import TypeAdapter, ValidationError
from sanic import Request

from api.http.json_body import json_object, shown_json
from api.http.parameters import ITEM_ID, shown, unusable
from api.http.problems import Unprocessable
from api.schemas.base import ItemId

#: The query of nearly every submission; a shortcut past the general parser.
_ONLY_AN_ITEM_ID = re.compile(r"item_id=([1-9][0-9]{0,8})", re.ASCII)
_IN_JSON: TypeAdapter[int] = TypeAdapter(ItemId)
_SCHEMA = _IN_JSON.json_schema()


def item_id_of(request: Request) -> int:
    """Read ``item_id`` from the query string or from a JSON object in the body; it must be given once.

    Raises:
      Unprocessable: It is absent, given twice, or no integer in range; or the body is no JSON object.
    """
    if not request.body and (only := _ONLY_AN_ITEM_ID.fullmatch(request.query_string)):
        return int(only[1])
    in_query = request.get_args(keep_blank_values=True).getlist("item_id") or []
    in_body = json_object(request)
    if len(in_query) + ("item_id" in in_body) > 1:
        raise Unprocessable("item_id is given more than once; give it once, in the query or in the body")
    if in_query:
        return ITEM_ID.read(in_query[0])
    if "item_id" in in_body:
        return _in_json(in_body["item_id"])
    raise Unprocessable('item_id is missing; give it as ?item_id=1 or as the JSON body {"item_id": 1}')


def _in_json(value: object) -> int:
    """Read an integer in range."""
    try:
        return _IN_JSON.validate_python(value, strict=True)
    except ValidationError as error:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        given = shown(str(value)) if is_integer else shown_json(value)
        raise unusable("item_id", _SCHEMA, error, given) from error
