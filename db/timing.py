"""The durations of statements, for whoever measures them: one observer in a process, or none."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import Engine, event

#: Takes the kind of a statement (see :func:`kind_of`) and its duration in seconds.
Observer = Callable[[str, float], None]

_KINDS = re.compile(r"\b(insert|update|delete)\b", re.IGNORECASE)
_observer: Observer | None = None


def observe_statements(observer: Observer | None) -> None:
    """Let ``observer`` be called after each statement of this process, on the thread that executed it."""
    global _observer
    _observer = observer


@lru_cache(maxsize=256)
def kind_of(statement: str) -> str:
    """Return ``insert``, ``update`` or ``delete``, what a statement does first, or else ``select``."""
    found = _KINDS.search(statement)
    return found.group(1).lower() if found else "select"


@contextmanager
def timed(statement: str) -> Iterator[None]:
    """Measure the block, which executes one statement. A failed one counts, too."""
    if _observer is None:
        yield
        return
    began_s = time.monotonic()
    try:
        yield
    finally:
        _observer(kind_of(statement), time.monotonic() - began_s)


def time_statements(engine: Engine) -> None:
    """Measure the statements of an engine."""

    @event.listens_for(engine, "before_cursor_execute")
    def begin(_: Any, __: Any, ___: str, ____: Any, context: Any, _____: bool) -> None:
        if _observer is not None:
            context.moderation_began_s = time.monotonic()

    @event.listens_for(engine, "after_cursor_execute")
    def end(_: Any, __: Any, statement: str, ___: Any, context: Any, ____: bool) -> None:
        began_s = getattr(context, "moderation_began_s", None)
        if _observer is not None and began_s is not None:
            _observer(kind_of(statement), time.monotonic() - began_s)

    @event.listens_for(engine, "handle_error")
    def fail(found: Any) -> None:
        began_s = getattr(found.execution_context, "moderation_began_s", None)
        if _observer is not None and began_s is not None:
            _observer(kind_of(found.statement or ""), time.monotonic() - began_s)
