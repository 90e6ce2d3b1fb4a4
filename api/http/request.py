"""The class of requests."""

import asyncio
import re
import time
import weakref
from typing import Any

from sanic import Request
from sanic.compat import Header

from api.http.authentication import Access
from api.http.body_budget import BodyBudget, TooManyBodies
from api.http.connections import Connections, LimitedProtocol
from api.http.problems import Malformed
from api.services.hang_up import HangUp
from api.services.metrics import NO_ROUTE, ApiMetrics
from api.services.rate_limits import Limit
from submissions.callers import ANYBODY, Caller, Scope

# Tokens of RFC 9110, separated by colons. Some proxies read a name with a space as the same one without.
_NAMES = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?::|\Z))*", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: The time in which a cancelled task ends.
TASK_END_S = 0.01


class AnyRequest(Request):
    """Sanic's request for every URL that a client can send, with a body within the application's budget.

    Sanic answers a URL that it cannot parse by making a request of the method NONE with the same URL: it
    fails again and closes the connection. It also fails for an absolute URL without a path, which means
    ``/``.

    Attributes:
      limits: The state of the key's limits, for the response.
    """

    __slots__ = ("_caller", "_give_back", "limits")

    def __init__(self, url_bytes: bytes, headers: Header, version: str, method: str, *rest: Any, **more: Any):
        if not _NAMES.fullmatch(":".join(headers)):
            raise Malformed(
                "A header's name has a character that no name may have, as a space before its colon"
            )
        super().__init__(b"*" if method == "NONE" else url_bytes, headers, version, method, *rest, **more)
        self._give_back: weakref.finalize[[int], AnyRequest] | None = None
        self._caller: Caller | None = None
        self.limits: list[Limit] = []

    @property
    def path(self) -> str:
        return super().path if self._parsed_url.path else "/"

    @property
    def caller(self) -> Caller:
        """The caller, once :meth:`authorize` has found it."""
        return self._caller or ANYBODY

    @property
    def hang_up(self) -> HangUp:
        """Whether the client sends no more bytes."""
        stream: Any = self.stream
        protocol: LimitedProtocol = stream.protocol
        return protocol.hang_up

    async def respond(self, response: Any = None, **arguments: Any) -> Any:
        """Begin to send the response, and count it: a middleware would take three times as long."""
        responded = await super().respond(response, **arguments)
        stream: Any = self.stream
        began_s: float | None = stream.perft0
        if began_s is not None:  # otherwise it was refused before it had a route
            metrics: ApiMetrics = self.app.ctx.metrics
            route = NO_ROUTE if self.route is None else f"/{self.route.path}"
            method = self.method if self.method in _METHODS else "other"
            metrics.observe_request(method, route, responded.status, time.perf_counter() - began_s)
        return responded

    async def authorize(self) -> None:
        """Find the caller, unless that is done, and check that it may use this route.

        Raises:
          Unauthorized, Forbidden, LimitExceeded, DatabaseUnavailable: See :meth:`Access.caller`.
        """
        scope: Scope | None = getattr(self.route.ctx, "scope", None) if self.route else None
        if scope is None or self._caller is not None:
            return
        access: Access = self.app.ctx.access
        self._caller, limit = await access.caller(self.headers, scope)
        if limit is not None:
            self.limits.append(limit)

    async def receive_body(self) -> None:
        """Receive the body of an authorized request. The budget counts received bytes, not announced ones.

        Raises:
          TooManyBodies: The bodies of other requests leave no room.
        """
        if self.body:
            return
        await self.authorize()  # nobody else may use the budget
        budget: BodyBudget = self.app.ctx.bodies
        stream: Any = self.stream
        protocol: LimitedProtocol = stream.protocol
        chunks: list[bytes] = []
        taken = 0
        protocol.receive(is_receiving=True)
        try:
            async for chunk in stream:
                await self._take(budget, len(chunk))
                taken += len(chunk)
                protocol.body_bytes = taken
                chunks.append(chunk)
        except BaseException:
            budget.give_back(taken)
            raise
        finally:
            protocol.receive(is_receiving=False)
        self.body = b"".join(chunks)
        if taken:
            # The bytes return to the budget with the request's memory, however the request ends.
            self._give_back = weakref.finalize(self, budget.give_back, taken)

    async def _take(self, budget: BodyBudget, count: int) -> None:
        """Take bytes; without room, end slow requests, whose bytes come back at the end of their tasks.

        Raises:
          TooManyBodies: There is no room, and no body that arrives slowly.
        """
        while True:
            try:
                return budget.take(count)
            except TooManyBodies:
                connections: Connections = self.app.ctx.connections
                if not connections.drop_a_slow_body():
                    raise
                await asyncio.sleep(TASK_END_S)

    def give_body_back(self) -> None:
        """Return the body's bytes to the budget: the request is answered."""
        if self._give_back is not None:
            self._give_back()
