"""The Sanic application."""

import asyncio
import re
from functools import wraps

from sanic import HTTPResponse, Sanic

from api.body_budget import BodyBudget
from api.docs import add_docs
from api.handlers import moderation_result
from api.operations import OPERATIONS, Handler
from api.problems import ProblemHandler
from api.requests import AnyRequest
from api.services import Services
from api.upkeep import keep_up
from settings import get_settings
from tasks.wiring import outbox

#: The largest body: an id needs twenty bytes, a thousand ads of a kilobyte each go in by bulk.
MAX_BODY_BYTES = 1_000_000
MAX_HEADER_BYTES = 8_192
#: A request without an answer by then gets a 503. PostgreSQL has shorter deadlines, unless it hangs.
RESPONSE_TIMEOUT_S = 15


def create_app() -> Sanic:
    """Make the application. Connects to nothing until a request needs it."""
    app = Sanic(
        "moderation", error_handler=ProblemHandler(), request_class=AnyRequest, configure_logging=False
    )
    app.config.AUTO_EXTEND = False  # routes and document are ours, whatever is installed
    app.config.ACCESS_LOG = False
    app.config.MOTD = False
    app.config.REQUEST_MAX_SIZE = MAX_BODY_BYTES
    app.config.REQUEST_MAX_HEADER_SIZE = MAX_HEADER_BYTES
    app.config.RESPONSE_TIMEOUT = RESPONSE_TIMEOUT_S
    app.ctx.bodies = BodyBudget(get_settings().api_max_body_bytes)
    for operation in OPERATIONS:
        app.add_route(
            _answering(operation.handler),
            _sanic_path(operation.path),
            methods=["GET", "HEAD"] if operation.method == "GET" else [operation.method],
            name=operation.name,
            unquote=True,
        )
    # An absent task_id is a wrong request, not an unknown path.
    app.add_route(moderation_result, "/moderation_result", methods=["GET", "HEAD"], name="no_task_id")
    add_docs(app)
    app.register_listener(_start, "before_server_start")
    app.register_listener(_release_waiting, "before_server_stop")
    app.register_listener(_stop, "after_server_stop")
    return app


async def _start(app: Sanic) -> None:
    app.ctx.services = Services()
    app.ctx.services.load_model()
    app.ctx.upkeep = asyncio.create_task(keep_up(app.ctx.services))
    outbox.start()


async def _release_waiting(app: Sanic) -> None:
    """Answer those who wait for an outcome with what there is, so that they do not hold up the stop."""
    app.ctx.upkeep.cancel()
    app.ctx.services.news.close()


async def _stop(app: Sanic) -> None:
    app.ctx.services.close()
    await asyncio.to_thread(outbox.stop)


def _answering(handler: Handler) -> Handler:
    """The same, and the body that came with the request is given back."""

    @wraps(handler)
    async def answer(request: AnyRequest, **path: str) -> HTTPResponse:
        try:
            return await handler(request, **path)
        finally:
            request.give_body_back()

    return answer


def _sanic_path(path: str) -> str:
    """Write ``/thing/{id}`` as Sanic does. Any text matches; what is wrong with it the handler says."""
    return re.sub(r"{(\w+)}", r"<\1:str>", path)
