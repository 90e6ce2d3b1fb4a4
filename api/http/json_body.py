"""The JSON bodies of requests."""

import json
import re
from decimal import Decimal, DecimalException
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from sanic import Request

from api.http.parameters import shown
from api.http.problems import Unprocessable

Body = TypeVar("Body", bound=BaseModel)

#: Mistakes of a body that the problem names; further ones are only counted.
MAX_MISTAKES_NAMED = 3
#: Longer numbers are in no range, and as integers would take memory: 1e999999999 is one.
MAX_INTEGER_DIGITS = 30

_CHARSET = re.compile(r""";[ \t]*charset[ \t]*=[ \t]*"?([^";]*?)"?[ \t]*(?:;|$)""", re.IGNORECASE | re.ASCII)
#: ASCII is a part of UTF-8.
_CHARSETS = {"utf-8", "utf8", "us-ascii", "ascii"}


def body_of(request: Request, model: type[Body]) -> Body:
    """Read the body as one of ``api.schemas``.

    Raises:
      Unprocessable: It is absent, no JSON object, or refused by the model; the text names the mistakes.
    """
    if not request.body:
        keys = ", ".join(model.model_fields)
        raise Unprocessable(f"The body is missing; it must be a JSON object with {keys}")
    try:
        return model.model_validate(json_object(request), strict=True)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        named = [_sentence(mistake) for mistake in mistakes[:MAX_MISTAKES_NAMED]]
        more = [f"and {len(mistakes) - len(named)} more"] if len(mistakes) > len(named) else []
        raise Unprocessable("; ".join(named + more)) from error


def _sentence(mistake: Any) -> str:
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in mistake["loc"])
    text = mistake["msg"].removeprefix("Value error, ")
    return f"{where.lstrip('.')}: {text}" if where else text


def json_object(request: Request) -> dict[str, Any]:
    """Return the body as a dictionary, empty when there is no body.

    The standard library parses it, because pydantic's parser accepts repeated keys.

    Raises:
      Unprocessable: It is anything but one JSON object.
    """
    if not request.body:
        return {}
    _check_content_type(request.headers.getall("content-type", []))
    try:
        document = json.loads(
            request.body.decode("utf-8-sig"),  # the body of bytes may also be UTF-16
            object_pairs_hook=_without_repeated_keys,
            parse_constant=_refuse_constant,
            parse_float=_number,
        )
    except json.JSONDecodeError as error:
        raise Unprocessable(f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise Unprocessable("The body is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise Unprocessable("The body is not UTF-8") from error
    except ValueError as error:  # of int()
        raise Unprocessable("The body has an integer of too many digits") from error
    if not isinstance(document, dict):
        raise Unprocessable(f"The body must be a JSON object, not {shown_json(document)}")
    return document


def _check_content_type(given: list[str]) -> None:
    if not given:
        raise Unprocessable("The body has no Content-Type; it must be application/json")
    if len(given) > 1:
        raise Unprocessable("Content-Type is given more than once")
    media_type = given[0].partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise Unprocessable(f"The body must be application/json, not {shown(media_type)}")
    charset = _CHARSET.search(given[0])
    if charset and charset[1].lower() not in _CHARSETS:
        raise Unprocessable(f"The body must be UTF-8, not {shown(charset[1])}")


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Unprocessable("The body names a key more than once")
    return document


def _refuse_constant(constant: str) -> None:
    raise Unprocessable(f"The body is not JSON: {constant} is no JSON number")


def _number(text: str) -> int | float:
    """Read a number with a fraction or an exponent. 645.0 is the integer 645, as in JSON Schema."""
    try:
        number = Decimal(text)
        if number.adjusted() < MAX_INTEGER_DIGITS and number == number.to_integral_value():
            return int(number)
    except DecimalException:  # an exponent beyond those of decimal
        pass
    return float(text)


def shown_json(value: object) -> str:
    """Name the kind of a JSON value; quote the value where it is short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return f"the string {shown(value)}"
    return json.dumps(value, ensure_ascii=False)
