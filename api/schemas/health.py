"""The bodies of the health checks."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.base import ResponseBody


class AliveBody(ResponseBody):
    status: Literal["alive"]


class ReadyBody(ResponseBody):
    """``degraded``: requests are answered, but the dependencies in ``missing`` cannot be used."""

    status: Literal["ready", "degraded"]
    missing: Annotated[
        dict[str, str],
        Field(description="why, by name: kafka (tasks are accepted and wait), model (no verdicts at once)"),
    ]
