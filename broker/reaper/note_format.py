"""The common form of a reaper's notes: JSON with the fields ``kind`` and ``v``, among other records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def decode_note(
    value: bytes | None, kind: str, version: int, from_fields: Callable[[Mapping[str, Any]], T]
) -> T | None:
    """Decode a record's value; None when it is no note of this kind and version, or lacks a field.

    Parameters:
      from_fields: Makes the note. It raises KeyError, TypeError or ValueError for a field that is missing or
        has another type.
    """
    # Most records are reports, compressed or large: they are not parsed.
    if value is None or not value.startswith(b"{") or f'"{kind}"'.encode() not in value:
        return None
    try:
        fields = json.loads(value)
        if fields.get("kind") != kind or fields.get("v") != version:
            return None
        return from_fields(fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
