"""What a request must look like, and the sentence for when it does not."""

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from sanic import Request

from api.problems import Unprocessable
from db.submissions import MAX_ID

Body = TypeVar("Body", bound=BaseModel)

#: The longest wait for an outcome: less than a request may take at all, with room for PostgreSQL.
MAX_WAIT_S = 10
#: Mistakes of a body that are named; a thousand of them help nobody.
MAX_MISTAKES_NAMED = 3

#: The query that nearly every submission has; all others are read at leisure.
_ONLY_AN_ITEM_ID = re.compile(r"item_id=([1-9][0-9]{0,8})", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)
#: More digits than any id has, leading zeros aside; int() refuses thousands of them.
_MAX_DIGITS = 10


def id_from_text(name: str, value: str, *, least: int = 1, most: int = MAX_ID) -> int:
    """Read an id, or another integer, from a query string or a path.

    Raises:
      Unprocessable: when it is not an integer from ``least`` to ``most``.
    """
    if not _INTEGER.fullmatch(value):
        raise Unprocessable(f"{name} must be an integer, not {shown(value)}")
    if len(value.lstrip("-0")) > _MAX_DIGITS or not least <= int(value) <= most:
        raise Unprocessable(f"{name} must be from {least} to {most}, not {shown(value)}")
    return int(value)


def id_from_json(name: str, value: object) -> int:
    """Take an id out of a JSON document: a number without fraction or exponent.

    Raises:
      Unprocessable: when it is not an integer from 1 to 2147483647.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unprocessable(f"{name} must be an integer, not {_json_kind(value)}")
    if not 1 <= value <= MAX_ID:
        raise Unprocessable(f"{name} must be from 1 to {MAX_ID}, not {shown(str(value))}")
    return value


def wait_of(request: Request) -> int:
    """Read how long the client would wait for an outcome, in seconds; 0 when it does not say.

    Raises:
      Unprocessable: when it is not an integer from 0 to :data:`MAX_WAIT_S`.
    """
    given = one_in_query(request, "wait")
    return 0 if given is None else id_from_text("wait", given, least=0, most=MAX_WAIT_S)


def one_in_query(request: Request, name: str) -> str | None:
    """Return a parameter of the query string, None when it is absent.

    Raises:
      Unprocessable: when it is given more than once.
    """
    values = request.get_args(keep_blank_values=True).getlist(name) or [None]
    if len(values) > 1:
        raise Unprocessable(f"{name} is given more than once")
    value: str | None = values[0]
    return value


def item_id_of(request: Request) -> int:
    """Read ``item_id`` from the query string or from a JSON object in the body; it must be given once.

    Raises:
      Unprocessable: when it is absent, given twice, no integer in range, or the body is no JSON object.
    """
    if not request.body and (only := _ONLY_AN_ITEM_ID.fullmatch(request.query_string)):
        return int(only[1])
    in_query = request.get_args(keep_blank_values=True).getlist("item_id") or []
    in_body = json_object(request)
    if len(in_query) + ("item_id" in in_body) > 1:
        raise Unprocessable("item_id is given more than once; give it once, in the query or in the body")
    if in_query:
        return id_from_text("item_id", in_query[0])
    if "item_id" in in_body:
        return id_from_json("item_id", in_body["item_id"])
    raise Unprocessable('item_id is missing; give it as ?item_id=1 or as the JSON body {"item_id": 1}')


def body_of(request: Request, model: type[Body]) -> Body:
    """Read the body as one of ``api.schemas``.

    Raises:
      Unprocessable: naming what is wrong, and where.
    """
    if not request.body:
        raise Unprocessable(f"The body is missing; it must be a JSON object with {_keys_of(model)}")
    try:
        return model.model_validate(json_object(request), strict=True)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        named = [_mistake(mistake) for mistake in mistakes[:MAX_MISTAKES_NAMED]]
        more = [f"and {len(mistakes) - len(named)} more"] if len(mistakes) > len(named) else []
        raise Unprocessable("; ".join(named + more)) from error


def _keys_of(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _mistake(mistake: Any) -> str:
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in mistake["loc"])
    text = mistake["msg"].removeprefix("Value error, ")
    return f"{where.lstrip('.')}: {text}" if where else text


def json_object(request: Request) -> dict[str, Any]:
    """Return the body as a dictionary, empty when there is no body.

    Raises:
      Unprocessable: when it is anything but one JSON object.
    """
    if not request.body:
        return {}
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise Unprocessable(f"The body must be application/json, not {shown(media_type)}")
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


def _json_kind(value: object) -> str:
    """Name what a JSON value is, with the value where it is short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return f"the string {shown(value)}"
    return json.dumps(value)


def shown(value: str) -> str:
    """Quote what was given, so much of it as helps."""
    return repr(value if len(value) <= 40 else value[:40] + "...")
