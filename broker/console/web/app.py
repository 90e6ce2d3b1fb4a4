"""The console as an application of Sanic: its routes, and how a request passes the guard."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

from sanic import Request, Sanic, response
from sanic.exceptions import SanicException
from sanic.response import BaseHTTPResponse, HTTPResponse

from ...process.strict_json import dumps
from ..session import EXPECTED, WRONG_INPUT
from . import actions, dead_letter_actions, dead_letter_pages, pages, schedule_pages, task_pages
from .guard import SAFE_METHODS, Asked, Refusal, refusal
from .kept_pages import KeptPages
from .looks import Console, Look, NotFound, Redirect, Route, Unreachable, Unusable, View
from .rendering import HEADERS, HERE, Renderer, document_of
from .sections import Section, check
from .sessions import COOKIE, LIFETIME_S, Attempts, Sessions
from .users import Access, User, Users

logger = logging.getLogger(__name__)

#: The largest body: a form with a few thousand selected dead letters.
MAX_BODY_BYTES = 1_000_000
#: The interval in which an event stream looks for something new, and in which it says that it lives.
EVENT_INTERVAL_S = 0.5
EVENT_KEEP_ALIVE_S = 15.0
#: The largest number of browsers that listen at once.
MAX_STREAMS = 200
#: Static files keep for a day; their names have versions, or they are small.
STATIC_AGE_S = 3_600
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

#: The first parts of the paths that no route of the tables below has.
OTHER_PLACES = frozenset({"events", "log-in", "log-out", "static", "openapi.json"})

#: Sanic wants another name for each application of a process.
_numbers = itertools.count()

PAGES = (
    Route("GET", "/", Access.VIEW, pages.overview, "Whether all is well, and the last hour.", is_kept=True),
    Route("GET", "/queues", Access.VIEW, pages.queues, "All queues.", is_kept=True),
    Route(
        "GET", "/queues/<queue:str>", Access.VIEW, pages.queue, "A queue and its partitions.", is_kept=True
    ),
    Route("GET", "/tasks", Access.VIEW, task_pages.tasks, "Search for messages."),
    Route("GET", "/task", Access.VIEW, task_pages.task, "The life of a message."),
    Route("GET", "/dead-letters", Access.VIEW, dead_letter_pages.dead_letters, "Dead letters by error."),
    Route(
        "GET",
        "/dead-letters/<queue:str>/<partition:int>/<offset:int>",
        Access.VIEW,
        task_pages.dead_letter,
        "One dead letter.",
    ),
    Route("GET", "/actors", Access.VIEW, pages.actors, "All actors.", is_kept=True),
    Route("GET", "/actor", Access.VIEW, pages.actor, "One actor."),
    Route("GET", "/workers", Access.VIEW, pages.workers, "All workers and what they run.", is_kept=True),
    Route("GET", "/worker", Access.VIEW, pages.worker, "One worker.", is_kept=True),
    Route("GET", "/schedules", Access.VIEW, schedule_pages.schedules, "All schedules."),
    Route("GET", "/audit", Access.VIEW, pages.audit, "All changes."),
    Route("GET", "/health", Access.VIEW, pages.health, "The findings of the health check.", is_kept=True),
)

CHANGES = (
    Route("POST", "/queues/<queue:str>/pause", Access.OPERATE, actions.pause, "Pauses a queue."),
    Route("POST", "/queues/<queue:str>/resume", Access.OPERATE, actions.resume, "Resumes a queue."),
    Route("POST", "/worker/quiet", Access.OPERATE, actions.quiet, "Lets a worker take no more work."),
    Route("POST", "/worker/stop", Access.ADMINISTER, actions.stop, "Ends a worker."),
    Route("POST", "/schedules/pause", Access.OPERATE, schedule_pages.pause, "Pauses a schedule."),
    Route("POST", "/schedules/resume", Access.OPERATE, schedule_pages.resume, "Resumes a schedule."),
    Route("POST", "/schedules/run", Access.OPERATE, schedule_pages.run_now, "Runs a schedule now."),
    Route("POST", "/schedules/delete", Access.ADMINISTER, schedule_pages.delete, "Deletes a schedule."),
    Route("POST", "/task/cancel", Access.ADMINISTER, actions.cancel, "Drops a delayed message."),
    Route("POST", "/task/abort", Access.ADMINISTER, actions.abort, "Ends a task, or lets it not run."),
    Route("POST", "/task/run-now", Access.OPERATE, actions.run_now, "Runs a delayed message now."),
    Route("GET", "/send-again", Access.OPERATE, actions.edit, "The form to send a message again."),
    Route("POST", "/send-again", Access.OPERATE, actions.send_again, "Sends a message again, as a new one."),
    Route(
        "GET",
        "/dead-letters/resolve",
        Access.OPERATE,
        dead_letter_actions.confirm,
        "Repeats filter and count before a change.",
    ),
    Route(
        "POST", "/dead-letters/redrive", Access.OPERATE, dead_letter_actions.redrive, "Redrives dead letters."
    ),
    Route(
        "POST",
        "/dead-letters/discard",
        Access.ADMINISTER,
        dead_letter_actions.discard,
        "Discards dead letters.",
    ),
    Route("GET", "/jobs/<id:str>", Access.VIEW, dead_letter_actions.job, "The progress of a change."),
)


@dataclass(frozen=True, slots=True)
class Identification:
    """How a request tells its user.

    Attributes:
      proxy_header: The header in which a proxy names the user; None without a proxy.
      proxy_addresses: The addresses whose header is believed.
    """

    users: Users
    sessions: Sessions
    proxy_header: str | None = None
    proxy_addresses: frozenset[str] = frozenset()


class WebConsole:
    """The routes and the state of a console's HTTP side.

    Parameters:
      sections: The pages of the application.
    """

    def __init__(
        self, console: Console, identification: Identification, sections: Sequence[Section] = ()
    ) -> None:
        self.console = console
        self._identification = identification
        self._sections = sections
        self._renderer = Renderer(console, sections)
        self._attempts = Attempts()
        # Passwords one at a time: each takes 19 MiB. Changes wait for Kafka.
        self._passwords = ThreadPoolExecutor(1, "console-passwords")
        self._changes = ThreadPoolExecutor(4, "console-changes")
        self._looks = ThreadPoolExecutor(3, "console-looks")
        # What an application asks for its pages may hang.
        self._of_sections = ThreadPoolExecutor(2, "console-sections")
        self._kept = KeptPages()
        self._streams = 0
        self._static = {
            path.relative_to(HERE / "static").as_posix(): path.read_bytes()
            for path in (HERE / "static").rglob("*")
            if path.suffix in CONTENT_TYPES
        }

    def add_to(self, app: Sanic[Any, Any]) -> None:
        """Add the routes, and the guard before all routes of the application."""
        app.register_middleware(self._guard, "request")
        app.register_middleware(self._add_headers, "response")
        for route in (*PAGES, *CHANGES):
            self.add(app, route, self._looks if route.method in SAFE_METHODS else self._changes)
        for route in self._routes_of_sections:
            self.add(app, route, self._of_sections)
        app.add_route(self._events, "/events", methods=["GET"], ctx_right=Access.VIEW, name="events")
        app.add_route(
            self._log_in_page, "/log-in", methods=["GET"], ctx_right=Access.PUBLIC, name="log_in_page"
        )
        app.add_route(self._log_in, "/log-in", methods=["POST"], ctx_right=Access.PUBLIC, name="log_in")
        app.add_route(self._log_out, "/log-out", methods=["POST"], ctx_right=Access.PUBLIC, name="log_out")
        app.add_route(
            self._static_file, "/static/<name:path>", methods=["GET"], ctx_right=Access.PUBLIC, name="static"
        )
        app.add_route(self._openapi, "/openapi.json", methods=["GET"], ctx_right=Access.VIEW, name="openapi")
        app.error_handler.add(Exception, self._on_error)

    @property
    def _routes_of_sections(self) -> list[Route]:
        return [route for section in self._sections for route in section.routes]

    def add(self, app: Sanic[Any, Any], route: Route, executor: ThreadPoolExecutor) -> None:
        """Add a route, whose answers the executor makes: a slow page does not hold the others."""

        async def answer(request: Request, **path: Any) -> HTTPResponse:
            look = self._look(request, {name: str(value) for name, value in path.items()})
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(executor, self._made, request, route, look)

        app.add_route(
            answer,
            route.path,
            methods=[route.method],
            ctx_right=route.right,
            unquote=True,
            name=f"{route.method} {route.path}".replace("/", "_"),
        )

    # Before and after every request

    async def _guard(self, request: Request) -> HTTPResponse | None:
        request.ctx.user = self._user_of(request)
        route = request.route
        if route is None:
            return None
        asked = Asked(
            request.method,
            getattr(route.ctx, "right", None),
            request.ctx.user,
            request.headers.get("host", ""),
            request.headers.get("origin"),
            request.headers.get("sec-fetch-site"),
        )
        refused = refusal(asked, is_read_only=self.console.is_read_only)
        return None if refused is None else self._refuse(request, refused)

    def _user_of(self, request: Request) -> User | None:
        how = self._identification
        if how.proxy_header is not None and request.ip in how.proxy_addresses:
            name = request.headers.get(how.proxy_header)
            return None if name is None else how.users.get(name)
        session = how.sessions.read(request.cookies.get(COOKIE))
        return None if session is None else how.users.get(session.user)

    async def _add_headers(self, request: Request, answer: BaseHTTPResponse) -> None:
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        answer.headers.setdefault("Cache-Control", "no-store")

    def _refuse(self, request: Request, refused: Refusal) -> HTTPResponse:
        if request.method not in SAFE_METHODS and request.ctx.user is not None:
            user = request.ctx.user.name
            self.console.audit.note(
                user, f"{request.method} {request.path}"[:200], "", why=refused.reason, outcome="refused"
            )
        if _wants_json(request):
            return _json({"error": refused.reason}, refused.status)
        if refused.status == 401:
            to = _url_of(request) if request.method in SAFE_METHODS else "/"
            return response.redirect(f"/log-in?{_form({'to': to})}", status=303)
        page = self._renderer.refusal(
            status=refused.status, reason=refused.reason, user=request.ctx.user, url=_url_of(request)
        )
        return response.html(page, status=refused.status)

    async def _on_error(self, request: Request, error: Exception) -> HTTPResponse:
        if not hasattr(request.ctx, "user"):
            request.ctx.user = self._user_of(request)
        if isinstance(error, NotFound):
            refused = Refusal(404, str(error))
        elif isinstance(error, (Unusable, *WRONG_INPUT)):
            refused = Refusal(400, str(error))
        elif isinstance(error, SanicException):
            refused = Refusal(error.status_code, str(error))
        elif isinstance(error, (Unreachable, *EXPECTED)):
            refused = Refusal(502, str(error))
        else:
            logger.error("The request %s %s failed", request.method, request.path, exc_info=error)
            refused = Refusal(500, "The console has a defect, which its log tells.")
        return self._refuse(request, refused)

    # Pages

    def _look(self, request: Request, path: dict[str, str]) -> Look:
        query = parse_qs(request.query_string, keep_blank_values=True, max_num_fields=5_000)
        if request.method not in SAFE_METHODS:
            query |= parse_qs(request.body.decode(errors="replace"), keep_blank_values=True)
        return Look(self.console, request.ctx.user, path, query)

    def _made(self, request: Request, route: Route, look: Look) -> HTTPResponse:
        """The answer of a route, made on a thread of an executor."""
        is_json, url = _wants_json(request), _url_of(request)
        if not route.is_kept:
            found = route.handler(look)
            if isinstance(found, Redirect):
                return _json(found.document, 200) if is_json else response.redirect(found.to, status=303)
            page = self._page_of(found, look, url, is_json=is_json)
        else:
            # Before it is made: what changes meanwhile is in the next one.
            state = (self.console.store.version, self.console.collector.condition.revision)
            page = self._kept.get(
                (url, look.user, is_json),
                state,
                lambda: self._page_of(route.handler(look), look, url, is_json=is_json),
            )
        return response.text(page, content_type="application/json") if is_json else response.html(page)

    def _page_of(self, found: View | Redirect, look: Look, url: str, *, is_json: bool) -> str:
        assert isinstance(found, View)  # only a change redirects
        if is_json:
            return document_of(found, self.console)
        return self._renderer.page(found, user=look.user, url=url)

    async def _events(self, request: Request) -> HTTPResponse | None:
        """Server-sent events: one for each round of the collector."""
        if self._streams >= MAX_STREAMS:
            return _json({"error": "Too many browsers listen."}, 503)
        self._streams += 1
        try:
            stream = await request.respond(content_type="text/event-stream", headers=HEADERS)
            assert stream is not None
            told, silent_s = self.console.collector.condition.revision, 0.0
            await stream.send("retry: 2000\n\n")
            while True:
                await asyncio.sleep(EVENT_INTERVAL_S)
                silent_s += EVENT_INTERVAL_S
                revision = self.console.collector.condition.revision
                if revision != told:
                    await stream.send(f"event: changed\ndata: {revision}\n\n")
                    told, silent_s = revision, 0.0
                elif silent_s >= EVENT_KEEP_ALIVE_S:
                    await stream.send(": still here\n\n")
                    silent_s = 0.0
        finally:
            self._streams -= 1

    async def _static_file(self, request: Request, name: str) -> HTTPResponse:
        content = self._static.get(name)
        if content is None:
            raise NotFound("There is no such file.")
        suffix = name[name.rindex(".") :]
        return response.raw(
            content,
            content_type=CONTENT_TYPES[suffix],
            headers={"Cache-Control": f"public, max-age={STATIC_AGE_S}"},
        )

    async def _openapi(self, request: Request) -> HTTPResponse:
        return _json(openapi((*PAGES, *CHANGES, *self._routes_of_sections)), 200)

    # Logging in

    async def _log_in_page(self, request: Request) -> HTTPResponse:
        return response.html(self._log_in_form(request, ""))

    def _log_in_form(self, request: Request, error: str) -> str:
        to = _local(_first(request.query_string, "to") or _first(request.body.decode(errors="replace"), "to"))
        has_passwords = self._identification.proxy_header is None
        return self._renderer.log_in(error=error, to=to, has_passwords=has_passwords)

    async def _log_in(self, request: Request) -> HTTPResponse:
        body = request.body.decode(errors="replace")
        name, password = _first(body, "user") or "", _first(body, "password") or ""
        keys = (f"address {request.ip}", f"user {name}"[:200])
        wait_s = self._attempts.wait_s(*keys)
        if wait_s > 0:
            text = f"Too many attempts. Try again in {wait_s:.0f} s."
            headers = {"Retry-After": f"{wait_s + 1:.0f}"}
            if _wants_json(request):
                return response.json({"error": text}, status=429, headers=headers)
            return response.html(self._log_in_form(request, text), status=429, headers=headers)
        # Counted before it is verified: parallel attempts would all pass the check above.
        self._attempts.note_failure(*keys)
        users = self._identification.users
        loop = asyncio.get_running_loop()
        user = await loop.run_in_executor(self._passwords, users.verify, name, password[:1_000])
        if user is None:
            self.console.audit.note(name[:200], "log in", request.ip, outcome="refused")
            text = "The name or the password is wrong."
            if _wants_json(request):
                return _json({"error": text}, 401)
            return response.html(self._log_in_form(request, text), status=401)
        self._attempts.forget(*keys)
        self.console.audit.note(user.name, "log in", request.ip)
        answer = response.redirect(_local(_first(body, "to")), status=303)
        answer.add_cookie(
            COOKIE,
            self._identification.sessions.begin(user.name),
            httponly=True,
            secure=request.scheme == "https",
            samesite="Strict",
            max_age=LIFETIME_S,
            path="/",
        )
        return answer

    async def _log_out(self, request: Request) -> HTTPResponse:
        session = self._identification.sessions.read(request.cookies.get(COOKIE))
        if session is not None:
            self._identification.sessions.end(session)
            self.console.audit.note(session.user, "log out", request.ip)
        answer = response.redirect("/log-in", status=303)
        answer.delete_cookie(COOKIE, path="/")
        return answer


def create_app(
    console: Console, identification: Identification, sections: Sequence[Section] = ()
) -> Sanic[Any, Any]:
    """The application. Other pages can be added to it: a route without ``ctx_right`` is refused.

    Parameters:
      sections: The pages of the application that the console is of.

    Raises:
      SectionRefused: When a section has the path of another one or of the console.
    """
    check(sections, taken={_place(route.path) for route in (*PAGES, *CHANGES)} | OTHER_PLACES)
    app: Sanic[Any, Any] = Sanic(f"console-{next(_numbers)}", configure_logging=False)
    app.config.REQUEST_MAX_SIZE = MAX_BODY_BYTES
    app.config.FALLBACK_ERROR_FORMAT = "text"
    # It compiles Sanic's methods anew for an application, which two applications of a process cannot share.
    app.config.TOUCHUP = False
    WebConsole(console, identification, sections).add_to(app)
    return app


def _place(path: str) -> str:
    """The first part of a path."""
    return path.split("/")[1]


def openapi(routes: Sequence[Route]) -> dict[str, Any]:
    """A description of the pages as JSON."""
    paths: dict[str, Any] = {}
    for route in routes:
        path = route.path.replace(":str>", "}").replace(":int>", "}").replace("<", "{")
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        paths.setdefault(path, {})[route.method.lower()] = {
            "summary": route.summary,
            "x-right": route.right.name.lower(),
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ],
            "responses": {
                "200": {
                    "description": "The document of the page.",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                }
            },
        }
    return {"openapi": "3.1.0", "info": {"title": "Web console", "version": "1"}, "paths": paths}


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _json(document: Any, status: int) -> HTTPResponse:
    return response.text(dumps(document), status=status, content_type="application/json")


def _url_of(request: Request) -> str:
    return request.path + (f"?{request.query_string}" if request.query_string else "")


def _form(fields: dict[str, str]) -> str:
    return urlencode(fields)


def _first(query: str, name: str) -> str | None:
    found = parse_qs(query, keep_blank_values=True).get(name)
    return found[0] if found else None


def _local(to: str | None) -> str:
    """A path of this site; the overview for anything else."""
    if to is None or not to.startswith("/") or to[1:2] in ("/", "\\") or any(ord(c) < 32 for c in to):
        return "/"
    return to
