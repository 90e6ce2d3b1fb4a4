"""Writes JSON that every parser reads, of any value.

Python's encoder writes NaN and Infinity, which are no JSON. It refuses values that applications log and send:
keys that are no texts, values that contain themselves, and objects whose ``str()`` fails. And a text with a
lone surrogate, as the name of a file that is not UTF-8, cannot be written to a stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

#: The nesting that is written. Deeper values are replaced by ``...``.
MAX_DEPTH = 50
_CUT = "..."


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON without a lone surrogate. It raises nothing.

    Numbers that JSON does not have are texts: ``"nan"``, ``"inf"``. A value of another type is its ``str()``.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=text_of, indent=indent)
    except (ValueError, TypeError, RecursionError):
        text = json.dumps(_plain(value, ()), ensure_ascii=False, indent=indent)
    # A lone surrogate can only be in a JSON string, where \udcff is an escape.
    return text.encode("utf-8", "backslashreplace").decode()


def text_of(value: object) -> str:
    """Return ``str(value)``, or the name of its class when that fails."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - any code of the application
        return f"<{type(value).__name__}>"


def _plain(value: Any, within: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 1024 else f"0x{value:x}"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if not isinstance(value, Mapping | list | tuple):
        return text_of(value)
    if id(value) in within or len(within) >= MAX_DEPTH:
        return _CUT
    within = (*within, id(value))
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else text_of(k): _plain(v, within) for k, v in value.items()}
    return [_plain(one, within) for one in value]
