"""Requests as they come."""

import weakref
from typing import Any

from sanic import Request
from sanic.compat import Header

from api.body_budget import BodyBudget


class AnyRequest(Request):
    """Sanic's request, for any URL that a client may send, and with a body that fits into the app's budget.

    For the error response to a URL that it cannot parse, Sanic makes a request of the method NONE with that
    same URL, fails again and hangs up. And it fails where an absolute URL has no path, meaning ``/``.
    """

    __slots__ = ("_give_back",)

    def __init__(self, url_bytes: bytes, headers: Header, version: str, method: str, *rest: Any, **more: Any):
        super().__init__(b"*" if method == "NONE" else url_bytes, headers, version, method, *rest, **more)
        self._give_back: weakref.finalize[[int], AnyRequest] | None = None

    @property
    def path(self) -> str:
        return super().path if self._parsed_url.path else "/"

    async def receive_body(self) -> None:
        """Receive the body; what has arrived of it counts, not what was announced.

        Raises:
          TooManyBodies: when others' bodies leave no room.
        """
        if self.body:
            return
        budget: BodyBudget = self.app.ctx.bodies
        stream: Any = self.stream
        chunks: list[bytes] = []
        taken = 0
        try:
            async for chunk in stream:
                budget.take(len(chunk))
                taken += len(chunk)
                chunks.append(chunk)
        except BaseException:
            budget.give_back(taken)
            raise
        self.body = b"".join(chunks)
        if taken:
            # Whatever becomes of the request, its memory is free when it is.
            self._give_back = weakref.finalize(self, budget.give_back, taken)

    def give_body_back(self) -> None:
        """Count the body no more: the request is answered."""
        if self._give_back is not None:
            self._give_back()
