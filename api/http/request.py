"""The class of requests."""

import asyncio
import re
import weakref
from typing import Any

from sanic import Request
from sanic.compat import Header

from api.http.body_budget import BodyBudget, TooManyBodies
from api.http.connections import Connections, LimitedProtocol
from api.http.problems import Malformed

# Tokens of RFC 9110, separated by colons. Some proxies read a name with a space as the same one without.
_NAMES = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?::|\Z))*", re.ASCII)
#: The time in which a cancelled task ends.
TASK_END_S = 0.01


class AnyRequest(Request):
    """Sanic's request for every URL that a client can send, with a body within the application's budget.

    Sanic answers a URL that it cannot parse by making a request of the method NONE with the same URL: it
    fails again and closes the connection. It also fails for an absolute URL without a path, which means
    ``/``.
    """

    __slots__ = ("_give_back",)

    def __init__(self, url_bytes: bytes, headers: Header, version: str, method: str, *rest: Any, **more: Any):
        if not _NAMES.fullmatch(":".join(headers)):
            raise Malformed(
                "A header's name has a character that no name may have, as a space before its colon"
            )
        super().__init__(b"*" if method == "NONE" else url_bytes, headers, version, method, *rest, **more)
        self._give_back: weakref.finalize[[int], AnyRequest] | None = None

    @property
    def path(self) -> str:
        return super().path if self._parsed_url.path else "/"

    async def receive_body(self) -> None:
        """Receive the body. The budget counts received bytes, not announced ones.

        Raises:
          TooManyBodies: The bodies of other requests leave no room.
        """
        if self.body:
            return
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
