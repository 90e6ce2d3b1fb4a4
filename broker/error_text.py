"""Errors as text of a bounded size, for messages' options and for dead letters."""

from __future__ import annotations

import traceback

#: An error's text may hold a whole response body; a message must not grow with its error.
MAX_ERROR_CHARS = 2_000
MAX_TRACEBACK_CHARS = 16_000
#: The options of a message that hold the text of its last failure.
NOTES = ("traceback", "last_error")
#: The number of frames that Dramatiq keeps. Here they are the innermost ones, where the error is.
MAX_FRAMES = 30


def error_text(error: BaseException) -> str:
    """The text of the error, or its class when the text is empty."""
    try:
        text = str(error)
    except Exception as e:  # noqa: BLE001 - a task's own __str__ may raise anything
        text = f"<{type(error).__name__} whose text raised {type(e).__name__}>"
    return excerpt(text or type(error).__name__, MAX_ERROR_CHARS)


def traceback_text(error: BaseException) -> str:
    """The traceback with the errors it was caused by, the outermost frames left out."""
    return excerpt("".join(traceback.format_exception(error, limit=-MAX_FRAMES)), MAX_TRACEBACK_CHARS)


def shorten_notes(options: object, max_chars: int) -> None:
    """Shorten the notes about the last failure in a message's options.

    They are there for people to read, and a message must not be given up because of them.
    """
    if isinstance(options, dict):
        for name in NOTES:
            if isinstance(text := options.get(name), str):
                options[name] = excerpt(text, max_chars)


def excerpt(text: str, max_chars: int) -> str:
    """``text`` itself, or its beginning and its end when it is longer than ``max_chars``."""
    if len(text) <= max_chars:
        return text
    note = f"\n[... {len(text) - max_chars} characters left out ...]\n"
    kept = max(0, max_chars - len(note))
    head = kept // 3
    return (text[:head] + note + text[len(text) - (kept - head) :])[: max(max_chars, 0)]
