"""Submitting ads for moderation."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from sanic import HTTPResponse

from api.http.fast_json import FastJSON
from api.http.idempotency_key import idempotency_key_of, submit_once
from api.http.item_id import item_id_of
from api.http.json_body import body_of
from api.http.parameters import IDEMPOTENCY_KEY, ITEM_ID
from api.http.problems import Conflict, Unprocessable
from api.http.request import AnyRequest
from api.http.traceparent import traceparent_of
from api.routes.operation import AWAY, NO_AD, TOO_LARGE, Operation, calls_of, no_such_ad, ok, problem_answer
from api.schemas.submitting import (
    MAX_BULK,
    AcceptedBody,
    BulkAcceptedBody,
    BulkSubmissionBody,
    BulkSubmissionRequestBody,
)
from api.services.async_batcher import TooManyWaiting
from api.services.rate_limits import LimitExceeded
from db.errors import TransactionLost
from submissions.submitting import Accepted, Reply, SubmissionRequest


async def async_predict(request: AnyRequest) -> HTTPResponse:
    item_id = item_id_of(request)
    key = idempotency_key_of(request, "one", [item_id])
    accepted = await _submit(
        request,
        calls_of(request).submit,
        SubmissionRequest((item_id,), key, request.caller, traceparent_of(request)),
    )
    [task_id] = accepted.task_ids
    if task_id is None:
        raise no_such_ad(item_id)
    return FastJSON(AcceptedBody(task_id=task_id, status="pending", message="Moderation request accepted"))


async def async_predict_bulk(request: AnyRequest) -> HTTPResponse:
    item_ids = body_of(request, BulkSubmissionRequestBody).item_ids
    key = idempotency_key_of(request, "bulk", item_ids)
    wanted = SubmissionRequest(tuple(item_ids), key, request.caller, traceparent_of(request))
    accepted = await _submit(request, calls_of(request).submit_bulk, wanted)
    results = [
        BulkSubmissionBody(item_id=item_id, task_id=task_id, status="pending" if task_id else "not_found")
        for item_id, task_id in zip(item_ids, accepted.task_ids, strict=True)
    ]
    return FastJSON(
        BulkAcceptedBody(accepted=sum(1 for task_id in accepted.task_ids if task_id), results=results)
    )


async def _submit(
    request: AnyRequest, submit: Callable[[SubmissionRequest], Awaitable[Reply]], wanted: SubmissionRequest
) -> Accepted:
    """Submit the ads within the quota of the key, to which ads that are not submitted return."""
    if wanted.caller.quota_per_day is None:
        return await submit_once(submit, wanted)
    calls, count = calls_of(request), len(wanted.item_ids)
    try:
        taken = await calls.take_from_quota(wanted.caller, count)
    except LimitExceeded as error:
        return await _without_quota(request, wanted, error)
    if taken is None:
        return await submit_once(submit, wanted)
    request.limits.append(taken.limit)
    try:
        accepted = await submit_once(submit, wanted)
    except (Conflict, Unprocessable, TooManyWaiting, TransactionLost):  # of others, the effect is not known
        await calls.give_back_to_quota(taken, count)
        raise
    if unused := count - accepted.count:
        request.limits[-1] = taken.limit.with_more(unused)
        await calls.give_back_to_quota(taken, unused)
    return accepted


async def _without_quota(request: AnyRequest, wanted: SubmissionRequest, refusal: LimitExceeded) -> Accepted:
    """Answer a request that needs no quota: a repetition, or one for an ad that does not exist.

    Raises:
      LimitExceeded: It needs more ads than are left.
    """
    calls = calls_of(request)

    async def recall(repeated: SubmissionRequest) -> Reply:
        reply = await calls.recall(repeated)
        if reply is None:
            raise refusal
        return reply

    if wanted.key:
        try:
            accepted = await submit_once(recall, wanted)
        except LimitExceeded:
            pass  # the key is new
        else:
            request.limits.append(refusal.limit)
            return accepted
    if len(wanted.item_ids) == 1 and await calls.stored_ad(wanted.item_ids[0]) is None:
        request.limits.append(refusal.limit)
        return Accepted((None,))
    raise refusal


_BAD_KEY = problem_answer(HTTPStatus.BAD_REQUEST, "Idempotency-Key cannot be understood")
_IN_FLIGHT = problem_answer(
    HTTPStatus.CONFLICT, "A request with the same Idempotency-Key is under way; ask again"
)
_REUSED = problem_answer(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "Ids are absent or out of range, or the Idempotency-Key was used for another request; detail says which",
)

OPERATIONS = (
    Operation(
        "POST",
        "/async_predict",
        async_predict,
        "Submit an ad for moderation in the background",
        parameters=(ITEM_ID, IDEMPOTENCY_KEY),
        answers=(
            ok("Accepted: the verdict will follow", AcceptedBody),
            _BAD_KEY,
            NO_AD,
            _IN_FLIGHT,
            TOO_LARGE,
            _REUSED,
            AWAY,
        ),
        scope="submit",
        example="curl -X POST 'http://localhost:8000/async_predict?item_id=1'",
    ),
    Operation(
        "POST",
        "/async_predict/bulk",
        async_predict_bulk,
        f"Submit up to {MAX_BULK} ads at once",
        parameters=(IDEMPOTENCY_KEY,),
        body=BulkSubmissionRequestBody,
        answers=(
            ok("A status for each id, in their order", BulkAcceptedBody),
            _BAD_KEY,
            _IN_FLIGHT,
            TOO_LARGE,
            _REUSED,
            AWAY,
        ),
        scope="submit",
        example="curl http://localhost:8000/async_predict/bulk --json '{\"item_ids\": [1, 2, 3]}'",
    ),
)
