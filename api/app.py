"""The Sanic application."""

import asyncio
import re
from functools import wraps
from typing import cast

from sanic import HTTPResponse, Sanic

from api.docs.page import add_docs
from api.http.authentication import Access
from api.http.body_budget import BodyBudget
from api.http.fast_json import FastJSON
from api.http.problems import ProblemHandler
from api.http.request import AnyRequest
from api.routes import OPERATIONS
from api.routes.metrics import add_metrics
from api.routes.operation import Handler
from api.routes.results import moderation_result
from api.services.async_application import AsyncApplication
from api.services.housekeeping import keep_house
from api.services.metrics import ApiMetrics, MeasuredPredictor
from db.timing import observe_statements
from settings import get_settings, keys_are_required
from submissions.application import Application

#: The largest body: an id needs twenty bytes, and a thousand ads of a kilobyte fit into one bulk request.
MAX_BODY_BYTES = 1_000_000
MAX_HEADER_BYTES = 8_192


def create_app(address: str = "") -> Sanic:
    """Make the application. It connects to nothing until a request needs it.

    Parameters:
      address: The IP address that it is served on; one that is not loopback needs API keys by default.
    """
    app = Sanic(
        "moderation", error_handler=ProblemHandler(), request_class=AnyRequest, configure_logging=False
    )
    app.config.AUTO_EXTEND = False  # no extension may add routes or a document of its own
    app.config.ACCESS_LOG = False
    app.config.MOTD = False
    app.config.REQUEST_MAX_SIZE = MAX_BODY_BYTES
    app.config.REQUEST_MAX_HEADER_SIZE = MAX_HEADER_BYTES
    app.ctx.bodies = BodyBudget(get_settings().api_max_body_bytes)
    app.ctx.needs_keys = keys_are_required(get_settings().api_keys, address)
    for operation in OPERATIONS:
        app.add_route(
            _authorized(operation.handler),
            _sanic_path(operation.path),
            methods=["GET", "HEAD"] if operation.method == "GET" else [operation.method],
            name=operation.name,
            unquote=True,
            ctx_scope=operation.scope,
        )
    # A request without a task_id is wrong, and its path is known.
    app.add_route(
        _authorized(moderation_result),
        "/moderation_result",
        methods=["GET", "HEAD"],
        name="no_task_id",
        ctx_scope="read",
    )
    add_docs(app, needs_keys=app.ctx.needs_keys, console_url=get_settings().console_url)
    app.ctx.metrics = ApiMetrics()
    add_metrics(app, app.ctx.metrics)
    app.register_listener(_start, "before_server_start")
    app.register_listener(_release_waiting, "before_server_stop")
    app.register_listener(_stop, "after_server_stop")
    return app


async def _start(app: Sanic) -> None:
    settings = get_settings()
    application = Application(settings)
    application.predictor = MeasuredPredictor(application.predictor, app.ctx.metrics)
    observe_statements(app.ctx.metrics.observe_statement)
    app.ctx.application = application
    app.ctx.calls = AsyncApplication(application, settings)
    app.ctx.access = Access(app.ctx.calls.key_ring, is_required=app.ctx.needs_keys)
    app.ctx.calls.load_model()
    app.ctx.housekeeping = asyncio.create_task(keep_house(app.ctx.calls))
    application.start()


async def _release_waiting(app: Sanic) -> None:
    """Answer the clients that wait for an outcome, so that they do not delay the stop."""
    app.ctx.housekeeping.cancel()
    app.ctx.calls.release_waiting()


async def _stop(app: Sanic) -> None:
    app.ctx.calls.close()
    await asyncio.to_thread(app.ctx.application.stop)


def _authorized(handler: Handler) -> Handler:
    """Return the handler for authorized callers, which also returns the request's body to the budget."""

    @wraps(handler)
    async def answer(request: AnyRequest, **path: str) -> HTTPResponse:
        try:
            await request.authorize()
            response = await handler(request, **path)
            if request.limits:
                cast(FastJSON, response).limits = request.limits
            return response
        finally:
            request.give_body_back()

    return answer


def _sanic_path(path: str) -> str:
    """Write ``/thing/{id}`` as Sanic does. Any text matches; the handler refuses it."""
    return re.sub(r"{(\w+)}", r"<\1:str>", path)
