"""A Dramatiq broker backed by Kafka topics."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import public_names
    from .public_names import *  # noqa: F403

    __all__: list[str] = []
    __all__ += public_names.__all__
else:
    # The reaper of a command must be ready before it has imported the broker and kafka-python, which takes
    # half a second.
    def __getattr__(name: str) -> object:
        public_names = importlib.import_module(f"{__name__}.public_names")
        if name == "__all__":
            return public_names.__all__
        if name not in public_names.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(public_names, name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
