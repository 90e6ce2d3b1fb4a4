"""Parameters of the query string, the path and the headers.

A pydantic type reads each parameter, and describes it in the OpenAPI document.
"""

import re
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from sanic import Request

from api.http.problems import Unprocessable, shown
from db.submissions import MAX_ID, Status

Value = TypeVar("Value")
Place = Literal["query", "path", "header"]

#: The longest wait for an outcome: shorter than a request may take, with room for PostgreSQL.
MAX_WAIT_S = 10
DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_KEY_CHARACTERS = 255

# As in JSON Schema, 645.0 is an integer.
_INTEGER = re.compile(r"(-?)0*([0-9]+)(?:\.0+)?", re.ASCII)
_KEY = r"""^("([ !#-\[\]-~]|\\["\\])COUNT"|[!#-+\--:<-\[\]-~]COUNT)$"""
_OUT_OF_RANGE = {"greater_than_equal", "less_than_equal", "int_parsing_size"}


def _check_digits(text: str) -> str:
    """Return the integer without leading zeros and without a fraction of zeros.

    The other spellings that pydantic reads as integers are refused: ``+1``, `` 1`` and ``1_0``.
    Leading zeros are dropped here: pydantic ignores them when it limits the number of digits, and ``int()``,
    which it then calls, counts them.
    """
    if not (integer := _INTEGER.fullmatch(text)):
        raise ValueError("not an integer")
    return integer[1] + integer[2]


def _up_to(limit: int) -> str:
    """Return a regular expression for the integers from 1 to ``limit``, without leading zeros."""
    digits = str(limit)
    choices = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"]
    for position, digit in enumerate(digits):
        lowest = 0 if position else 1
        if int(digit) > lowest:
            rest = len(digits) - position - 1
            choices.append(f"{digits[:position]}[{lowest}-{int(digit) - 1}][0-9]{{{rest}}}")
    return "|".join([*choices, digits])


_DIGITS = BeforeValidator(_check_digits)
_Id = Annotated[int, Field(ge=1, le=MAX_ID, json_schema_extra={"format": "int64"}), _DIGITS]


class Parameter(Generic[Value]):
    """A parameter, as the OpenAPI document describes it and as a handler reads it.

    Parameters:
      kind: The pydantic type of its value.
      default: For the document only.
      documented_as: A JSON schema for the document in place of the type's.
    """

    def __init__(
        self,
        name: str,
        kind: Any,
        place: Place,
        description: str,
        *,
        required: bool = False,
        default: Value | None = None,
        documented_as: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.place = place
        self.description = description
        self.required = required
        self._type: TypeAdapter[Value] = TypeAdapter(kind)
        self._own_schema = self._type.json_schema()
        self.schema = documented_as or self._own_schema
        if default is not None:
            self.schema = {**self.schema, "default": default}

    def read(self, text: str) -> Value:
        """Return the value of the text.

        Raises:
          Unprocessable: The text is no such value.
        """
        try:
            return self._type.validate_python(text)
        except ValidationError as error:
            raise unusable(self.name, self._own_schema, error, shown(text)) from error

    def in_query(self, request: Request) -> Value | None:
        """Return the value in the query string, None when it is absent.

        Raises:
          Unprocessable: It is given more than once, or is no such value.
        """
        values = request.get_args(keep_blank_values=True).getlist(self.name) or []
        if len(values) > 1:
            raise Unprocessable(f"{self.name} is given more than once")
        return self.read(values[0]) if values else None


TASK_ID = Parameter[int]("task_id", _Id, "path", "As POST /async_predict gave it", required=True)
ITEM_ID = Parameter[int](
    "item_id",
    _Id,
    "query",
    'The ad. A JSON body {"item_id": 1} may name it instead; not both, which OpenAPI cannot say',
    required=True,
)
ITEM_ID_FILTER = Parameter[int]("item_id", _Id, "query", "Only those of this ad")
WAIT = Parameter[int](
    "wait",
    Annotated[int, Field(ge=0, le=MAX_WAIT_S), _DIGITS],
    "query",
    "While it is pending, wait so many seconds for its outcome; then it is given as it is",
    default=0,
)
STATUS_FILTER = Parameter[Status]("status", Status, "query", "Only those")
CURSOR = Parameter[int](
    "cursor",
    _Id,
    "query",
    "next_cursor of the page before",
    documented_as={"type": "string", "pattern": rf"^0*({_up_to(MAX_ID)})(\.0+)?$"},
)
LIMIT = Parameter[int](
    "limit",
    Annotated[int, Field(ge=1, le=MAX_LIMIT), _DIGITS],
    "query",
    "Submissions on a page",
    default=DEFAULT_LIMIT,
)
IDEMPOTENCY_KEY = Parameter[str](
    "Idempotency-Key",
    Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARACTERS)],
    "header",
    "A name for this request, new for each: sent again with the same key it leads to the same tasks",
    # A string of RFC 8941; and the same characters without quotes, which most clients send.
    documented_as={
        "type": "string",
        "pattern": _KEY.replace("COUNT", f"{{1,{MAX_KEY_CHARACTERS}}}"),
    },
)


def unusable(name: str, schema: dict[str, Any], error: ValidationError, given: str) -> Unprocessable:
    """Return the problem of one value that its type refuses.

    Parameters:
      schema: The JSON schema of the type.
      given: The value as the problem is to show it.
    """
    kind = error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
    if kind in _OUT_OF_RANGE:
        expected = f"from {schema['minimum']} to {schema['maximum']}"
    elif "enum" in schema:
        expected = f"one of {', '.join(schema['enum'])}"
    else:
        expected = "an integer"
    return Unprocessable(f"{name} must be {expected}, not {given}")
