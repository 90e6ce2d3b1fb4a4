"""Submissions and their outcomes."""

from http import HTTPStatus

from sanic import HTTPResponse

from api.http.fast_json import FastJSON
from api.http.parameters import CURSOR, DEFAULT_LIMIT, ITEM_ID_FILTER, LIMIT, STATUS_FILTER, TASK_ID, WAIT
from api.http.problems import Conflict, NoSuchThing, Unprocessable
from api.http.request import AnyRequest
from api.routes.operation import (
    AWAY,
    BAD_ID,
    NO_MODEL,
    NO_TASK,
    TOO_LARGE,
    Operation,
    calls_of,
    ok,
    problem_answer,
)
from api.schemas.explanations import ExplainedVerdictBody
from api.schemas.results import (
    RESULT,
    CancelledBody,
    CompletedBody,
    FailedBody,
    ListedResultBody,
    PageBody,
    PendingBody,
    SubmissionDetailsBody,
    details_body,
)
from db.submissions import Submission
from submissions.explaining import NoSuchTask, NothingToExplain
from submissions.queries import PageRequest


async def moderation_result(request: AnyRequest, task_id: str = "") -> HTTPResponse:
    if not task_id:
        raise Unprocessable("task_id is missing; ask for /moderation_result/{task_id}")
    wanted = TASK_ID.read(task_id)
    calls = calls_of(request)
    wait_s = WAIT.in_query(request)
    found = await (
        calls.outcome(wanted, request.caller, wait_s=wait_s, hang_up=request.hang_up)
        if wait_s
        else calls.result(wanted, request.caller)
    )
    return _result(_existing(found, wanted))


async def moderation_results(request: AnyRequest) -> HTTPResponse:
    wanted = PageRequest(
        limit=LIMIT.in_query(request) or DEFAULT_LIMIT,
        before=CURSOR.in_query(request),
        item_id=ITEM_ID_FILTER.in_query(request),
        status=STATUS_FILTER.in_query(request),
    )
    page, has_next = await calls_of(request).call(
        lambda application: application.queries.page(wanted, request.caller)
    )
    return FastJSON(
        PageBody(
            results=[ListedResultBody.model_validate(one) for one in page],
            next_cursor=str(page[-1].task_id) if has_next else None,
        )
    )


async def cancel_moderation(request: AnyRequest, task_id: str) -> HTTPResponse:
    wanted = TASK_ID.read(task_id)
    found = await calls_of(request).call(
        lambda application: application.queries.cancel(wanted, request.caller)
    )
    submission = _existing(found, wanted)
    if submission.status != "cancelled":
        raise Conflict(f"Task {wanted} is {submission.status} already; only a pending one can be cancelled")
    return _result(submission)


async def explanation(request: AnyRequest, task_id: str) -> HTTPResponse:
    wanted = TASK_ID.read(task_id)
    try:
        explained = await calls_of(request).explanation(wanted, request.caller)
    except NoSuchTask as error:
        raise NoSuchThing(str(error)) from error
    except NothingToExplain as error:
        raise Conflict(str(error)) from error
    return FastJSON(ExplainedVerdictBody.model_validate(explained))


async def submission(request: AnyRequest, task_id: str) -> HTTPResponse:
    wanted = TASK_ID.read(task_id)
    found = await calls_of(request).details(wanted, request.caller)
    if found is None:
        raise no_such_task(wanted)
    return FastJSON(details_body(found.submission, found.judgement, found.history, is_stale=found.is_stale))


def _existing(found: Submission | None, task_id: int) -> Submission:
    if found is None:
        raise no_such_task(task_id)
    return found


def no_such_task(task_id: int) -> NoSuchThing:
    return NoSuchThing(f"There is no task with task_id {task_id}")


def _result(submission: Submission) -> HTTPResponse:
    return FastJSON(RESULT.validate_python(submission, from_attributes=True))


_BAD_QUERY = problem_answer(HTTPStatus.UNPROCESSABLE_ENTITY, "A parameter cannot be used; detail says which")

OPERATIONS = (
    Operation(
        "GET",
        "/moderation_result/{task_id}",
        moderation_result,
        "Ask what became of a submission",
        parameters=(TASK_ID, WAIT),
        answers=(
            ok(
                "Pending, completed or failed; or cancelled",
                PendingBody,
                CompletedBody,
                FailedBody,
                CancelledBody,
            ),
            NO_TASK,
            BAD_ID,
            AWAY,
        ),
        scope="read",
        example="curl 'http://localhost:8000/moderation_result/1?wait=10'",
    ),
    Operation(
        "GET",
        "/moderation_results",
        moderation_results,
        "List submissions, newest first, a page at a time",
        parameters=(STATUS_FILTER, ITEM_ID_FILTER, CURSOR, LIMIT),
        answers=(ok("A page", PageBody), _BAD_QUERY, AWAY),
        scope="read",
        example="curl 'http://localhost:8000/moderation_results?status=failed&limit=10'",
    ),
    Operation(
        "POST",
        "/moderation_result/{task_id}/cancel",
        cancel_moderation,
        "Take a submission back while it has no outcome",
        parameters=(TASK_ID,),
        answers=(
            ok("Cancelled, now or before", CancelledBody),
            NO_TASK,
            problem_answer(HTTPStatus.CONFLICT, "It has its outcome already"),
            TOO_LARGE,
            BAD_ID,
            AWAY,
        ),
        scope="submit",
        example="curl -X POST http://localhost:8000/moderation_result/1/cancel",
    ),
    Operation(
        "GET",
        "/moderation_result/{task_id}/explanation",
        explanation,
        "Ask why a verdict is what it is",
        parameters=(TASK_ID,),
        answers=(
            ok("The rule, the words and the features", ExplainedVerdictBody),
            NO_TASK,
            problem_answer(
                HTTPStatus.CONFLICT, "It has no verdict, or nothing explains it; detail says which"
            ),
            BAD_ID,
            NO_MODEL,
        ),
        scope="read",
        example="curl http://localhost:8000/moderation_result/1/explanation",
    ),
    Operation(
        "GET",
        "/submissions/{task_id}",
        submission,
        "Everything that is known of a submission",
        parameters=(TASK_ID,),
        answers=(
            ok("It; keys may be added", SubmissionDetailsBody),
            NO_TASK,
            BAD_ID,
            AWAY,
        ),
        scope="read",
        example="curl http://localhost:8000/submissions/1",
    ),
)
