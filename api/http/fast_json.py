"""JSON responses made of the models that the OpenAPI document describes."""

from pydantic import BaseModel
from sanic import HTTPResponse


class FastJSON(HTTPResponse):
    """A model as a JSON response.

    Its headers are Sanic's and the product's, and hold nothing that a client sent. They are therefore written
    without the search for line breaks that Sanic's responses make in every name and value.
    """

    __slots__ = ()

    def __init__(self, body: BaseModel) -> None:
        super().__init__(body.__pydantic_serializer__.to_json(body), content_type="application/json")

    @property
    def processed_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        self.headers.setdefault("content-type", self.content_type)
        return [(name.encode("ascii"), str(value).encode("ascii")) for name, value in self.headers.items()]
