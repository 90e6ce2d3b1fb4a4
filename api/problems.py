"""Errors on the wire: one JSON shape for all of them, RFC 9457's problem details."""

import logging
from http import HTTPStatus
from typing import Any

from sanic import HTTPResponse, Request, json
from sanic.exceptions import NotFound, RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.helpers import STATUS_CODES

from api.batching import TooManyWaiting
from api.body_budget import TooManyBodies
from api.services import Stopping
from db.errors import DatabaseUnavailable
from tasks.prediction import CannotScore, ModelUnavailable

_SAID_TO_CLIENTS = {*range(400, 500), HTTPStatus.SERVICE_UNAVAILABLE}

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
#: When a client that met a 503 should ask again.
RETRY_AFTER_S = 5


class Unprocessable(SanicException):
    """The request's values cannot be used; the message says which and why."""

    status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    quiet = True


class Malformed(SanicException):
    """A header cannot be understood."""

    status_code = HTTPStatus.BAD_REQUEST
    quiet = True


class Conflict(SanicException):
    """The state of things does not allow it (now)."""

    status_code = HTTPStatus.CONFLICT
    quiet = True


class NoSuchThing(NotFound):
    """What the request names does not exist."""


class Unavailable(SanicException):
    """Something the answer needs is away for now."""

    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    quiet = True


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> HTTPResponse:
    """Make the response: ``{"type", "title", "status", "detail"}``, and ``Retry-After`` with a 503."""
    headers = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("retry-after", str(RETRY_AFTER_S))
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": STATUS_CODES.get(status, b"Error").decode(),
        "status": status,
        "detail": detail,
    }
    return json(body, status=status, headers=headers, content_type=CONTENT_TYPE)


_UNAVAILABLE: dict[type[Exception], str] = {
    DatabaseUnavailable: "The database cannot be used right now; ask again later",
    TooManyWaiting: "Too many requests are waiting; ask again later",
    TooManyBodies: "Too many large bodies arrive at once; ask again later",
    Stopping: "The server stops before this is answered; what was asked for may have happened or not",
    ModelUnavailable: "There is no model to score with: the server's log says why. All else works",
}


class ProblemHandler(ErrorHandler):
    """Turns every exception of a request, Sanic's own included, into a problem."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        for kind, detail in _UNAVAILABLE.items():
            if isinstance(exception, kind):
                return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        if isinstance(exception, NotFound) and not isinstance(exception, NoSuchThing):
            return problem(HTTPStatus.NOT_FOUND, f"Nothing is served at {request.path}; see /docs")
        if isinstance(exception, SanicException) and exception.status_code in _SAID_TO_CLIENTS:
            return problem(exception.status_code, str(exception), exception.headers)
        if isinstance(exception, CannotScore):
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The model cannot score this ad")
        if isinstance(exception, RequestCancelled):
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "The client is gone")  # and reads no answer
        # The client learns nothing of our insides; the log has all of it.
        logger.error("%s %s failed", request.method, request.path, exc_info=exception)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The server made a mistake; it is in its log")
