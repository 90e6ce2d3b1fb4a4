"""Errors as RFC 9457 problem details: one JSON shape for all of them."""

import logging
from http import HTTPStatus

from sanic import HTTPResponse, Request
from sanic.exceptions import NotFound, RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.helpers import STATUS_CODES

from api.http.body_budget import TooManyBodies
from api.http.limit_headers import limit_headers
from api.schemas.problem import ProblemBody
from api.services.async_application import Stopping
from api.services.async_batcher import TooManyWaiting
from api.services.rate_limits import LimitExceeded
from db.errors import DatabaseUnavailable
from submissions.predicting import CannotScore, ModelUnavailable

_SHOWN_TO_CLIENTS = {*range(400, 500), HTTPStatus.SERVICE_UNAVAILABLE}

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
#: The delay after which a client should repeat a request that met a 503.
RETRY_AFTER_S = 5


class Unprocessable(SanicException):
    """A value of the request cannot be used; the text names it and gives the reason."""

    status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    quiet = True


class Malformed(SanicException):
    """A header cannot be understood."""

    status_code = HTTPStatus.BAD_REQUEST
    quiet = True


class Conflict(SanicException):
    """The present state does not allow the request."""

    status_code = HTTPStatus.CONFLICT
    quiet = True


class NoSuchThing(NotFound):
    """The resource that the request names does not exist."""


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> HTTPResponse:
    """Return the response: ``{"type", "title", "status", "detail"}``, with ``Retry-After`` for a 503."""
    headers = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("retry-after", str(RETRY_AFTER_S))
    body = ProblemBody(
        type="about:blank",
        title=STATUS_CODES.get(status, b"Error").decode(),
        status=status,
        detail=detail,
    )
    return HTTPResponse(
        body.__pydantic_serializer__.to_json(body), status=status, headers=headers, content_type=CONTENT_TYPE
    )


def shown(value: str) -> str:
    """Quote the beginning of a value. A whole API key is longer."""
    return repr(value if len(value) <= 40 else value[:40] + "...")


_UNAVAILABLE: dict[type[Exception], str] = {
    DatabaseUnavailable: "The database cannot be used right now; ask again later",
    TooManyWaiting: "Too many requests are waiting; ask again later",
    TooManyBodies: "Too many large bodies arrive at once; ask again later",
    Stopping: "The server stops before this is answered; what was asked for may have happened or not",
    ModelUnavailable: "There is no model to score with: the server's log says why. All else works",
}


class ProblemHandler(ErrorHandler):
    """Turns every exception of a request, also Sanic's own, into a problem."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        limits = list(getattr(request, "limits", ()))
        if isinstance(exception, LimitExceeded):
            limits.append(exception.limit)
        response = self._problem(request, exception)
        response.headers.update({name.decode(): value for name, value in limit_headers(limits)})
        return response

    def _problem(self, request: Request, exception: Exception) -> HTTPResponse:
        for kind, detail in _UNAVAILABLE.items():
            if isinstance(exception, kind):
                return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        if isinstance(exception, LimitExceeded):
            retry_after = {"retry-after": str(exception.retry_after_s)}
            return problem(HTTPStatus.TOO_MANY_REQUESTS, str(exception), retry_after)
        if isinstance(exception, NotFound) and not isinstance(exception, NoSuchThing):
            return problem(HTTPStatus.NOT_FOUND, f"Nothing is served at {shown(request.path)}; see /docs")
        if isinstance(exception, SanicException) and exception.status_code in _SHOWN_TO_CLIENTS:
            return problem(exception.status_code, str(exception), exception.headers)
        if isinstance(exception, CannotScore):
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The model cannot score this ad")
        if isinstance(exception, RequestCancelled):
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "The client is gone")  # and reads no answer
        # The response reveals nothing of the cause; the log has all of it.
        logger.error("%s %s failed", request.method, request.path, exc_info=exception)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The server made a mistake; it is in its log")
