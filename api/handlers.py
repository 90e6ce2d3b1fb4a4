"""One function for each operation."""

from functools import partial
from http import HTTPStatus

from sanic import HTTPResponse, Request, json

from api import transactions
from api.answers import OurJson
from api.bodies import details_body, history_body, listed_body, result_body
from api.health import KAFKA, MODEL
from api.idempotency import hand_in, idempotency_key_of
from api.paging import page_of
from api.parsing import body_of, id_from_text, item_id_of, wait_of
from api.problems import Conflict, NoSuchThing, Unprocessable, problem
from api.schemas import Ad, Ads, BulkSubmissionRequest
from api.services import Services
from db.submissions import Submission
from tasks.submission import HandIn


async def async_predict(request: Request) -> HTTPResponse:
    item_id = item_id_of(request)
    key = idempotency_key_of(request, "one", [item_id])
    accepted = await hand_in(_services(request).submit, HandIn((item_id,), key))
    [task_id] = accepted.task_ids
    if task_id is None:
        raise _no_such_ad(item_id)
    return OurJson({"task_id": task_id, "status": "pending", "message": "Moderation request accepted"})


async def async_predict_bulk(request: Request) -> HTTPResponse:
    item_ids = body_of(request, BulkSubmissionRequest).item_ids
    key = idempotency_key_of(request, "bulk", item_ids)
    accepted = await hand_in(_services(request).submit_bulk, HandIn(tuple(item_ids), key))
    results = [
        {"item_id": item_id, "task_id": task_id, "status": "pending" if task_id else "not_found"}
        for item_id, task_id in zip(item_ids, accepted.task_ids, strict=True)
    ]
    return json({"accepted": sum(1 for task_id in accepted.task_ids if task_id), "results": results})


async def moderation_result(request: Request, task_id: str = "") -> HTTPResponse:
    if not task_id:
        raise Unprocessable("task_id is missing; ask for /moderation_result/{task_id}")
    wanted = id_from_text("task_id", task_id)
    services = _services(request)
    wait_s = wait_of(request)
    if wait_s:
        found = await services.outcome(wanted, wait_s=wait_s)
    else:
        found = await services.results.answer(wanted)
    return json(result_body(_there(found, wanted)))


async def moderation_results(request: Request) -> HTTPResponse:
    wanted = page_of(request)
    # One more than the page has, to see whether another follows.
    found = await _services(request).call(
        partial(
            transactions.read_submissions,
            limit=wanted.limit + 1,
            before=wanted.before,
            status=wanted.status,
            item_id=wanted.item_id,
        )
    )
    page = found[: wanted.limit]
    next_cursor = str(page[-1].task_id) if len(found) > len(page) else None
    return json({"results": [listed_body(one) for one in page], "next_cursor": next_cursor})


async def cancel_moderation(request: Request, task_id: str) -> HTTPResponse:
    wanted = id_from_text("task_id", task_id)
    found = _there(await _services(request).call(partial(transactions.cancel, wanted)), wanted)
    if found.status != "cancelled":
        raise Conflict(f"Task {wanted} is {found.status} already; only a pending one can be cancelled")
    return json(result_body(found))


async def submission(request: Request, task_id: str) -> HTTPResponse:
    wanted = id_from_text("task_id", task_id)
    services = _services(request)
    found = _there(await services.results.answer(wanted), wanted)
    judgement = await services.call(partial(transactions.read_judgement_of, wanted))
    past = await services.call(partial(transactions.read_history_of, wanted))
    return json({**details_body(found, judgement), "history": history_body(past)})


async def predict(request: Request) -> HTTPResponse:
    verdict = await _services(request).verdict(body_of(request, Ad))
    return json({"is_violation": verdict.is_violation, "probability": verdict.probability})


async def simple_predict(request: Request) -> HTTPResponse:
    item_id = item_id_of(request)
    ad = await _services(request).stored_ad(item_id)
    if ad is None:
        raise _no_such_ad(item_id)
    verdict = await _services(request).verdict(ad)
    return json({"is_violation": verdict.is_violation, "probability": verdict.probability})


async def store_item(request: Request) -> HTTPResponse:
    ad = body_of(request, Ad)
    created = await _services(request).call(partial(transactions.store_ads, [ad]))
    return json({"item_id": ad.item_id, "status": "created" if created else "updated"})


async def store_items(request: Request) -> HTTPResponse:
    ads = body_of(request, Ads).items
    created = await _services(request).call(partial(transactions.store_ads, ads))
    results = [
        {"item_id": ad.item_id, "status": "created" if ad.item_id in created else "updated"} for ad in ads
    ]
    return json({"results": results})


async def livez(_: Request) -> HTTPResponse:
    return json({"status": "alive"})


async def readyz(request: Request) -> HTTPResponse:
    missing = await _services(request).readiness.missing()
    if missing.keys() - {KAFKA, MODEL}:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, f"Missing: {reasons}")
    return json({"status": "degraded" if missing else "ready", "missing": missing})


def _there(found: Submission | None, task_id: int) -> Submission:
    if found is None:
        raise NoSuchThing(f"There is no task with task_id {task_id}")
    return found


def _no_such_ad(item_id: int) -> NoSuchThing:
    return NoSuchThing(f"There is no ad with item_id {item_id}")


def _services(request: Request) -> Services:
    services: Services = request.app.ctx.services
    return services
