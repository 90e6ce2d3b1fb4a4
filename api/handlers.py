"""One function for each operation."""

from http import HTTPStatus
from typing import Any

from sanic import HTTPResponse, Request, json

from api.health import KAFKA
from api.parsing import id_from_text, item_id_of
from api.problems import NoSuchThing, Unprocessable, problem
from api.services import Services
from db.submissions import Submission


async def async_predict(request: Request) -> HTTPResponse:
    item_id = item_id_of(request)
    task_id = await _services(request).submissions.answer(item_id)
    if task_id is None:
        raise NoSuchThing(f"There is no ad with item_id {item_id}")
    return json({"task_id": task_id, "status": "pending", "message": "Moderation request accepted"})


async def moderation_result(request: Request, task_id: str = "") -> HTTPResponse:
    if not task_id:
        raise Unprocessable("task_id is missing; ask for /moderation_result/{task_id}")
    wanted = id_from_text("task_id", task_id)
    submission = await _services(request).results.answer(wanted)
    if submission is None:
        raise NoSuchThing(f"There is no task with task_id {wanted}")
    return json(result_body(submission))


async def livez(_: Request) -> HTTPResponse:
    return json({"status": "alive"})


async def readyz(request: Request) -> HTTPResponse:
    missing = await _services(request).readiness.missing()
    if missing.keys() - {KAFKA}:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, f"Missing: {reasons}")
    return json({"status": "degraded" if missing else "ready", "missing": missing})


def result_body(submission: Submission) -> dict[str, Any]:
    """Return the body for a submission: these keys in this order, ``error`` only when it failed."""
    body: dict[str, Any] = {
        "task_id": submission.task_id,
        "status": submission.status,
        "is_violation": submission.is_violation,
        "probability": submission.probability,
    }
    if submission.status == "failed":
        body["error"] = submission.error_message
    return body


def _services(request: Request) -> Services:
    services: Services = request.app.ctx.services
    return services
