"""Finds the locks that the objects of a broker hold."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import MethodType
from typing import Any

_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event)


def locks_of(root: object) -> dict[str, object]:
    """The locks that are reached from ``root`` through this project's objects, by the way to each."""
    found: dict[str, object] = {}
    seen: set[int] = set()
    waiting: deque[tuple[str, object]] = deque([(type(root).__name__, root)])
    while waiting:
        path, thing = waiting.popleft()
        if isinstance(thing, _LOCKS):
            found[path] = thing
        elif id(thing) not in seen:
            seen.add(id(thing))
            waiting.extend((f"{path}.{name}", part) for name, part in _parts_of(thing))
    return found


def _parts_of(thing: Any) -> Iterator[tuple[str, object]]:
    if isinstance(thing, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in list(thing.items()))
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        yield from ((f"[{number}]", part) for number, part in enumerate(list(thing)))
    elif isinstance(thing, partial):
        yield from (("func", thing.func), ("args", thing.args), ("keywords", thing.keywords))
    elif isinstance(thing, MethodType):
        yield "self", thing.__self__
    elif type(thing).__module__.split(".")[0] == "broker":
        yield from vars(thing).items() if hasattr(thing, "__dict__") else ()
        for kind in type(thing).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(thing, name):
                    yield name, getattr(thing, name)
