"""What the API can do: one table, from which the routes and the OpenAPI document are both made."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from sanic import HTTPResponse

from api import explanation_bodies, explanations, handlers, schemas
from api.idempotency import MAX_CHARACTERS
from api.paging import DEFAULT_LIMIT, MAX_LIMIT
from api.parsing import MAX_WAIT_S
from db.submissions import MAX_ID, STATUSES

Handler = Callable[..., Coroutine[Any, Any, HTTPResponse]]

_ID = {"type": "integer", "minimum": 1, "maximum": MAX_ID}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value in the query string, the path or a header. ``schema`` is JSON Schema, by default an id's."""

    name: str
    place: str  # "query", "path" or "header"
    required: bool
    description: str
    schema: dict[str, Any] = field(default_factory=lambda: _ID)


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
    body_required: bool = True
    example: str = ""

    @property
    def name(self) -> str:
        return self.handler.__name__


def _ok(description: str, *bodies: type[BaseModel]) -> Answer:
    return Answer(HTTPStatus.OK, description, bodies)


def _problem(status: HTTPStatus, description: str) -> Answer:
    return Answer(status, description, (schemas.Problem,))


_BAD_KEY = _problem(HTTPStatus.BAD_REQUEST, "Idempotency-Key cannot be understood")
_NO_AD = _problem(HTTPStatus.NOT_FOUND, "There is no such ad")
_NO_TASK = _problem(HTTPStatus.NOT_FOUND, "There is no such task")
_IN_FLIGHT = _problem(HTTPStatus.CONFLICT, "A request with the same Idempotency-Key is under way; ask again")
_TOO_LARGE = _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large")
_UNPROCESSABLE = _problem(
    HTTPStatus.UNPROCESSABLE_ENTITY, f"The id is absent or no integer from 1 to {MAX_ID}; detail says which"
)
_BAD_BODY = _problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The body is not as described; detail says where")
_BAD_QUERY = _problem(HTTPStatus.UNPROCESSABLE_ENTITY, "A parameter cannot be used; detail says which")
_REUSED = _problem(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "Ids are absent or out of range, or the Idempotency-Key was used for another request; detail says which",
)
_AWAY = _problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "PostgreSQL is away, or too many requests wait; Retry-After says when to ask again",
)
_NO_MODEL = _problem(
    HTTPStatus.SERVICE_UNAVAILABLE, "There is no model, or too many requests wait (or PostgreSQL is away)"
)

_TASK_ID = Parameter("task_id", "path", True, "As POST /async_predict gave it")
_KEY = Parameter(
    "Idempotency-Key",
    "header",
    False,
    "A name for this request, new for each: sent again with the same key it leads to the same tasks",
    {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS},
)
_ITEM_ID = Parameter("item_id", "query", False, "The ad; or give it in the body")

_SUBMITTING = (
    Operation(
        "POST",
        "/async_predict",
        handlers.async_predict,
        "Submit an ad for moderation in the background",
        parameters=(_ITEM_ID, _KEY),
        body=schemas.SubmissionRequest,
        body_required=False,
        answers=(
            _ok("Accepted: the verdict will follow", schemas.Accepted),
            _BAD_KEY,
            _NO_AD,
            _IN_FLIGHT,
            _TOO_LARGE,
            _REUSED,
            _AWAY,
        ),
        example="curl -X POST 'http://localhost:8000/async_predict?item_id=1'",
    ),
    Operation(
        "POST",
        "/async_predict/bulk",
        handlers.async_predict_bulk,
        f"Submit up to {schemas.MAX_BULK} ads at once",
        parameters=(_KEY,),
        body=schemas.BulkSubmissionRequest,
        answers=(
            _ok("A status for each id, in their order", schemas.BulkAccepted),
            _BAD_KEY,
            _IN_FLIGHT,
            _TOO_LARGE,
            _REUSED,
            _AWAY,
        ),
        example="curl http://localhost:8000/async_predict/bulk --json '{\"item_ids\": [1, 2, 3]}'",
    ),
)

_RESULTS = (
    Operation(
        "GET",
        "/moderation_result/{task_id}",
        handlers.moderation_result,
        "Ask what became of a submission",
        parameters=(
            _TASK_ID,
            Parameter(
                "wait",
                "query",
                False,
                "While it is pending, wait so many seconds for its outcome; then it is given as it is",
                {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_S, "default": 0},
            ),
        ),
        answers=(
            _ok(
                "Pending, completed or failed; or cancelled",
                schemas.Pending,
                schemas.Completed,
                schemas.Failed,
                schemas.Cancelled,
            ),
            _NO_TASK,
            _UNPROCESSABLE,
            _AWAY,
        ),
        example="curl 'http://localhost:8000/moderation_result/1?wait=10'",
    ),
    Operation(
        "GET",
        "/moderation_results",
        handlers.moderation_results,
        "List submissions, newest first, a page at a time",
        parameters=(
            Parameter("status", "query", False, "Only those", {"type": "string", "enum": list(STATUSES)}),
            Parameter("item_id", "query", False, "Only those of this ad"),
            Parameter("cursor", "query", False, "next_cursor of the page before", {"type": "string"}),
            Parameter(
                "limit",
                "query",
                False,
                "Submissions on a page",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            ),
        ),
        answers=(_ok("A page", schemas.Page), _BAD_QUERY, _AWAY),
        example="curl 'http://localhost:8000/moderation_results?status=failed&limit=10'",
    ),
    Operation(
        "POST",
        "/moderation_result/{task_id}/cancel",
        handlers.cancel_moderation,
        "Take a submission back while it has no outcome",
        parameters=(_TASK_ID,),
        answers=(
            _ok("Cancelled, now or before", schemas.Cancelled),
            _NO_TASK,
            _problem(HTTPStatus.CONFLICT, "It has its outcome already"),
            _TOO_LARGE,
            _UNPROCESSABLE,
            _AWAY,
        ),
        example="curl -X POST http://localhost:8000/moderation_result/1/cancel",
    ),
    Operation(
        "GET",
        "/moderation_result/{task_id}/explanation",
        explanations.explanation,
        "Ask why a verdict is what it is",
        parameters=(_TASK_ID,),
        answers=(
            _ok("The rule, the words and the features", explanation_bodies.ExplainedVerdict),
            _NO_TASK,
            _problem(HTTPStatus.CONFLICT, "It has no verdict, or nothing explains it; detail says which"),
            _UNPROCESSABLE,
            _NO_MODEL,
        ),
        example="curl http://localhost:8000/moderation_result/1/explanation",
    ),
    Operation(
        "GET",
        "/submissions/{task_id}",
        handlers.submission,
        "Everything that is known of a submission",
        parameters=(_TASK_ID,),
        answers=(
            _ok("It; keys may be added", schemas.SubmissionDetails),
            _NO_TASK,
            _UNPROCESSABLE,
            _AWAY,
        ),
        example="curl http://localhost:8000/submissions/1",
    ),
)

_AD = (
    '\'{"item_id": 1001, "seller_id": 1, "is_verified_seller": false, "name": "Велосипед",'
    ' "description": "Почти новый", "category": 19, "images_qty": 2}\''
)

_AT_ONCE = (
    Operation(
        "POST",
        "/predict",
        handlers.predict,
        "Score the ad in the body, at once; nothing is stored",
        body=schemas.Ad,
        answers=(_ok("The verdict", schemas.Verdict), _TOO_LARGE, _BAD_BODY, _NO_MODEL),
        example=f"curl http://localhost:8000/predict --json {_AD}",
    ),
    Operation(
        "POST",
        "/simple_predict",
        handlers.simple_predict,
        "Score a stored ad, at once; the verdict is not stored",
        parameters=(_ITEM_ID,),
        body=schemas.SubmissionRequest,
        body_required=False,
        answers=(
            _ok("The verdict", schemas.Verdict),
            _NO_AD,
            _TOO_LARGE,
            _UNPROCESSABLE,
            _NO_MODEL,
        ),
        example="curl -X POST 'http://localhost:8000/simple_predict?item_id=1'",
    ),
)

_ADS = (
    Operation(
        "POST",
        "/items",
        handlers.store_item,
        "Store an ad and its seller; one that is there is overwritten",
        body=schemas.Ad,
        answers=(_ok("Created or updated", schemas.StoredAd), _TOO_LARGE, _BAD_BODY, _AWAY),
        example=f"curl http://localhost:8000/items --json {_AD}",
    ),
    Operation(
        "POST",
        "/items/bulk",
        handlers.store_items,
        f"Store up to {schemas.MAX_BULK} ads, all or none",
        body=schemas.Ads,
        answers=(_ok("A status for each, in their order", schemas.StoredAds), _TOO_LARGE, _BAD_BODY, _AWAY),
        example="curl http://localhost:8000/items/bulk --json @ads.json",
    ),
)

_HEALTH = (
    Operation(
        "GET",
        "/livez",
        handlers.livez,
        "Is the process alive?",
        answers=(_ok("Yes", schemas.Alive),),
        example="curl 'http://localhost:8000/livez'",
    ),
    Operation(
        "GET",
        "/readyz",
        handlers.readyz,
        "Can it answer requests?",
        answers=(
            _ok("Yes; while Kafka is away, tasks are accepted and wait", schemas.Ready),
            _problem(HTTPStatus.SERVICE_UNAVAILABLE, "No: detail names PostgreSQL, migrations, Kafka"),
        ),
        example="curl 'http://localhost:8000/readyz'",
    ),
)

OPERATIONS = (*_SUBMITTING, *_RESULTS, *_AT_ONCE, *_ADS, *_HEALTH)
