"""JSON responses made of the models that the OpenAPI document describes."""

from collections.abc import Sequence

from pydantic import BaseModel
from sanic import HTTPResponse

from api.http.limit_headers import limit_headers
from api.services.rate_limits import Limit


class FastJSON(HTTPResponse):
    """A model as a JSON response.

    Its headers are Sanic's and the product's, and hold nothing that a client sent. They are therefore written
    without the search for line breaks that Sanic's responses make in every name and value.

    Attributes:
      limits: The state of the limits of the request's key.
    """

    __slots__ = ("limits",)

    def __init__(self, body: BaseModel) -> None:
        self.limits: Sequence[Limit] = ()
        super().__init__(body.__pydantic_serializer__.to_json(body), content_type="application/json")

    @property
    def processed_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        self.headers.setdefault("content-type", self.content_type)
        headers = [(name.encode("ascii"), str(value).encode("ascii")) for name, value in self.headers.items()]
        # Not by way of self.headers, whose changes take ten times as long.
        headers += [(name, value.encode("ascii")) for name, value in limit_headers(self.limits)]
        return headers
