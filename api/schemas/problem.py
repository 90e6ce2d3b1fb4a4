"""The body of every error."""

from typing import Literal

from api.schemas.base import ResponseBody


class ProblemBody(ResponseBody):
    """RFC 9457 problem details."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
