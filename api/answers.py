"""The answer to what is asked most often."""

from typing import Any

from sanic import HTTPResponse
from sanic.response.types import json_dumps


class OurJson(HTTPResponse):
    """A JSON body. The headers are Sanic's and ours and hold nothing that a client sent: they are written as
    they are, while Sanic's own responses look through every name and value for line breaks."""

    __slots__ = ()

    def __init__(self, body: Any) -> None:
        super().__init__(json_dumps(body), content_type="application/json")

    @property
    def processed_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        self.headers.setdefault("content-type", self.content_type)
        return [(name.encode("ascii"), str(value).encode("ascii")) for name, value in self.headers.items()]
