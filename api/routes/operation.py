"""The description of one operation, from which its route and its part of the OpenAPI document are made."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from sanic import HTTPResponse

from api.http.parameters import Parameter
from api.http.problems import NoSuchThing
from api.http.request import AnyRequest
from api.schemas.problem import ProblemBody
from api.services.async_application import AsyncApplication
from db.submissions import MAX_ID
from submissions.callers import Scope

Handler = Callable[..., Coroutine[Any, Any, HTTPResponse]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A status with the bodies that it may have (one of them)."""

    status: HTTPStatus
    description: str
    bodies: tuple[type[BaseModel], ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. ``path`` is OpenAPI's: ``/thing/{id}``.

    Attributes:
      scope: The scope that a key needs; None for an operation that needs no key.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answers: tuple[Answer, ...]
    scope: Scope | None
    parameters: tuple[Parameter[Any], ...] = ()
    body: type[BaseModel] | None = None
    example: str = ""

    @property
    def name(self) -> str:
        return self.handler.__name__


def ok(description: str, *bodies: type[BaseModel]) -> Answer:
    return Answer(HTTPStatus.OK, description, bodies)


def problem_answer(status: HTTPStatus, description: str) -> Answer:
    return Answer(status, description, (ProblemBody,))


#: Of every operation that needs a scope.
OF_KEYS = (
    problem_answer(HTTPStatus.UNAUTHORIZED, "There is no API key, or it is unknown, revoked or expired"),
    problem_answer(HTTPStatus.FORBIDDEN, "The API key lacks the scope of this operation"),
    problem_answer(
        HTTPStatus.TOO_MANY_REQUESTS,
        "The rate or the quota of the API key is used up; Retry-After says how long",
    ),
)
NO_AD = problem_answer(HTTPStatus.NOT_FOUND, "There is no such ad")
NO_TASK = problem_answer(HTTPStatus.NOT_FOUND, "There is no such task")
TOO_LARGE = problem_answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large")
BAD_ID = problem_answer(
    HTTPStatus.UNPROCESSABLE_ENTITY, f"The id is absent or no integer from 1 to {MAX_ID}; detail says which"
)
BAD_BODY = problem_answer(HTTPStatus.UNPROCESSABLE_ENTITY, "The body is not as described; detail says where")
AWAY = problem_answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "PostgreSQL is away, or too many requests wait; Retry-After says when to ask again",
)
NO_MODEL = problem_answer(
    HTTPStatus.SERVICE_UNAVAILABLE, "There is no model, or too many requests wait (or PostgreSQL is away)"
)


def calls_of(request: AnyRequest) -> AsyncApplication:
    """Return the application that the handlers call."""
    calls: AsyncApplication = request.app.ctx.calls
    return calls


def no_such_ad(item_id: int) -> NoSuchThing:
    return NoSuchThing(f"There is no ad with item_id {item_id}")
