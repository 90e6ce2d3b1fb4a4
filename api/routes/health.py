"""Health checks."""

from http import HTTPStatus

from sanic import HTTPResponse

from api.http.fast_json import FastJSON
from api.http.problems import problem
from api.http.request import AnyRequest
from api.routes.operation import Operation, calls_of, ok, problem_answer
from api.schemas.health import AliveBody, ReadyBody
from submissions.health import KAFKA, MODEL

#: The API accepts submissions without these.
_OPTIONAL = {KAFKA, MODEL}


async def livez(_: AnyRequest) -> HTTPResponse:
    return FastJSON(AliveBody(status="alive"))


async def readyz(request: AnyRequest) -> HTTPResponse:
    missing = await calls_of(request).readiness.missing()
    if missing.keys() - _OPTIONAL:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, f"Missing: {reasons}")
    return FastJSON(ReadyBody(status="degraded" if missing else "ready", missing=missing))


OPERATIONS = (
    Operation(
        "GET",
        "/livez",
        livez,
        "Is the process alive?",
        answers=(ok("Yes", AliveBody),),
        scope=None,
        example="curl 'http://localhost:8000/livez'",
    ),
    Operation(
        "GET",
        "/readyz",
        readyz,
        "Can it answer requests?",
        answers=(
            ok("Yes; while Kafka is away, tasks are accepted and wait", ReadyBody),
            problem_answer(HTTPStatus.SERVICE_UNAVAILABLE, "No: detail names PostgreSQL, migrations, Kafka"),
        ),
        scope=None,
        example="curl 'http://localhost:8000/readyz'",
    ),
)
