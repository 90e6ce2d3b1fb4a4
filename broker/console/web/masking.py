"""Which values of arguments are shown. Pure."""

from __future__ import annotations

import re
from typing import Any

MASK = "•••"
#: Values of these names are never shown, whoever looks.
SECRET_NAMES = re.compile(
    r"pass(word|wd|phrase|code)?$|pwd|secret|token|api_?key|access_?key|private_?key|authorization|credential"
    r"|cookie|session_?id|card_?number|cvc|cvv|iban|\bpin$",
    re.IGNORECASE,
)
#: A deeper value is masked as a whole.
MAX_DEPTH = 20


def without_secrets(value: Any, depth: int = 0) -> Any:
    """The value, in which whatever is named like a secret is masked, however deep."""
    if depth > MAX_DEPTH:
        return MASK
    if isinstance(value, dict):
        return {
            str(name): MASK if SECRET_NAMES.search(str(name)) else without_secrets(one, depth + 1)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(one, depth + 1) for one in value]
    return value


def masked(message: dict[str, Any] | None, *, is_shown: bool) -> dict[str, Any] | None:
    """``args``, ``kwargs`` and ``options`` of a message for one who looks at it.

    Parameters:
      is_shown: Whether arguments are shown. Otherwise only their number and names are.
    """
    if message is None:
        return None
    args, kwargs = message.get("args") or [], message.get("kwargs") or {}
    options = without_secrets(message.get("options") or {})
    if is_shown:
        return {"args": without_secrets(args), "kwargs": without_secrets(kwargs), "options": options}
    # Options hold pipelines, whose messages have arguments.
    plain = {name: one for name, one in options.items() if not isinstance(one, dict | list)}
    return {"args": [MASK] * len(args), "kwargs": dict.fromkeys(kwargs, MASK), "options": plain}
