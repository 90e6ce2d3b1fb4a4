"""What a request must look like, and the sentence for when it does not."""

import json
import re
from typing import Any

from sanic import Request

from api.problems import Unprocessable
from db.submissions import MAX_ID

_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)
#: More digits than any id has, leading zeros aside; int() refuses thousands of them.
_MAX_DIGITS = 10


def id_from_text(name: str, value: str) -> int:
    """Read an id from a query string or a path.

    Raises:
      Unprocessable: when it is not an integer from 1 to 2147483647.
    """
    if not _INTEGER.fullmatch(value):
        raise Unprocessable(f"{name} must be an integer, not {_shown(value)}")
    if len(value.lstrip("-0")) > _MAX_DIGITS:
        raise _out_of_range(name, value)
    return _in_range(name, int(value), value)


def id_from_json(name: str, value: object) -> int:
    """Take an id out of a JSON document: a number without fraction or exponent.

    Raises:
      Unprocessable: when it is not an integer from 1 to 2147483647.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unprocessable(f"{name} must be an integer, not {_json_kind(value)}")
    return _in_range(name, value, value)


def item_id_of(request: Request) -> int:
    """Read ``item_id`` from the query string or from a JSON object in the body; it must be given once.

    Raises:
      Unprocessable: when it is absent, given twice, no integer in range, or the body is no JSON object.
    """
    in_query = request.get_args(keep_blank_values=True).getlist("item_id") or []
    in_body = _json_object(request)
    if len(in_query) + ("item_id" in in_body) > 1:
        raise Unprocessable("item_id is given more than once; give it once, in the query or in the body")
    if in_query:
        return id_from_text("item_id", in_query[0])
    if "item_id" in in_body:
        return id_from_json("item_id", in_body["item_id"])
    raise Unprocessable('item_id is missing; give it as ?item_id=1 or as the JSON body {"item_id": 1}')


def _json_object(request: Request) -> dict[str, Any]:
    """Return the body as a dictionary, empty when there is no body."""
    if not request.body:
        return {}
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise Unprocessable(f"The body must be application/json, not {_shown(media_type)}")
    try:
        document = json.loads(request.body, object_pairs_hook=_without_repeated_keys, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise Unprocessable(f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise Unprocessable("The body is nested too deeply") from error
    except ValueError as error:
        raise Unprocessable("The body is not UTF-8, or holds an endless number") from error
    if not isinstance(document, dict):
        raise Unprocessable(f"The body must be a JSON object, not {_json_kind(document)}")
    return document


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Unprocessable("The body names a key more than once")
    return document


def _refuse(constant: str) -> None:
    raise Unprocessable(f"The body is not JSON: {constant} is no JSON number")


def _in_range(name: str, number: int, given: object) -> int:
    if not 1 <= number <= MAX_ID:
        raise _out_of_range(name, given)
    return number


def _out_of_range(name: str, given: object) -> Unprocessable:
    return Unprocessable(f"{name} must be from 1 to {MAX_ID}, not {_shown(str(given))}")


def _json_kind(value: object) -> str:
    """Name what a JSON value is, with the value where it is short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return f"the string {_shown(value)}"
    return json.dumps(value)


def _shown(value: str) -> str:
    """Quote what was given, so much of it as helps."""
    return repr(value if len(value) <= 40 else value[:40] + "...")
