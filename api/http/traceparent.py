"""The trace of a request, after https://www.w3.org/TR/trace-context/ ."""

import re

from sanic import Request

HEADER = "traceparent"
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def traceparent_of(request: Request) -> str:
    """Return the header; empty without one, and for one that is invalid, which is ignored as it asks."""
    given: str = request.headers.get(HEADER, "")
    return given if given and _TRACEPARENT.fullmatch(given) else ""
