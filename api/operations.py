"""What the API can do: one table, from which the routes and the OpenAPI document are both made."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from sanic import HTTPResponse

from api import handlers, schemas
from db.submissions import MAX_ID

Handler = Callable[..., Coroutine[Any, Any, HTTPResponse]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """An id in the query string or in the path."""

    name: str
    place: str  # "query" or "path"
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A status with the bodies it may come with (one of them)."""

    status: HTTPStatus
    description: str
    bodies: tuple[type[BaseModel], ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. ``path`` is OpenAPI's: ``/thing/{id}``."""

    method: str
    path: str
    handler: Handler
    summary: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
    example: str = ""

    @property
    def name(self) -> str:
        return self.handler.__name__


def _problem(status: HTTPStatus, description: str) -> Answer:
    return Answer(status, description, (schemas.Problem,))


_UNPROCESSABLE = _problem(
    HTTPStatus.UNPROCESSABLE_ENTITY, f"The id is absent or no integer from 1 to {MAX_ID}; detail says which"
)
_AWAY = _problem(HTTPStatus.SERVICE_UNAVAILABLE, "PostgreSQL is away; Retry-After says when to ask again")

OPERATIONS = (
    Operation(
        "POST",
        "/async_predict",
        handlers.async_predict,
        "Submit an ad for moderation in the background",
        parameters=(Parameter("item_id", "query", False, "The ad; or give it in the body"),),
        body=schemas.SubmissionRequest,
        answers=(
            Answer(HTTPStatus.OK, "Accepted: the verdict will follow", (schemas.Accepted,)),
            _problem(HTTPStatus.NOT_FOUND, "There is no such ad"),
            _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
            _UNPROCESSABLE,
            _AWAY,
        ),
        example="curl -X POST 'http://localhost:8000/async_predict?item_id=1'",
    ),
    Operation(
        "GET",
        "/moderation_result/{task_id}",
        handlers.moderation_result,
        "Ask what became of a submission",
        parameters=(Parameter("task_id", "path", True, "As POST /async_predict gave it"),),
        answers=(
            Answer(
                HTTPStatus.OK,
                "Pending, completed or failed",
                (schemas.Pending, schemas.Completed, schemas.Failed),
            ),
            _problem(HTTPStatus.NOT_FOUND, "There is no such task"),
            _UNPROCESSABLE,
            _AWAY,
        ),
        example="curl 'http://localhost:8000/moderation_result/1'",
    ),
    Operation(
        "GET",
        "/livez",
        handlers.livez,
        "Is the process alive?",
        answers=(Answer(HTTPStatus.OK, "Yes", (schemas.Alive,)),),
        example="curl 'http://localhost:8000/livez'",
    ),
    Operation(
        "GET",
        "/readyz",
        handlers.readyz,
        "Can it answer requests?",
        answers=(
            Answer(HTTPStatus.OK, "Yes; while Kafka is away, tasks are accepted and wait", (schemas.Ready,)),
            _problem(HTTPStatus.SERVICE_UNAVAILABLE, "No: detail names PostgreSQL, migrations, Kafka"),
        ),
        example="curl 'http://localhost:8000/readyz'",
    ),
)
