"""GET /moderation_result/{task_id}/explanation."""

from functools import partial

from sanic import HTTPResponse, Request, json

from api.bodies import verdict_body
from api.parsing import id_from_text
from api.problems import Conflict, NoSuchThing
from api.services import Services
from tasks.explaining import NoSuchTask, NothingToExplain, explain_verdict


async def explanation(request: Request, task_id: str) -> HTTPResponse:
    services: Services = request.app.ctx.services
    try:
        explained, judgement = await services.call(partial(explain_verdict, id_from_text("task_id", task_id)))
    except NoSuchTask as error:
        raise NoSuchThing(str(error)) from error
    except NothingToExplain as error:
        raise Conflict(str(error)) from error
    return json({**explained, "verdict": None if judgement is None else verdict_body(judgement)})
