"""Tracebacks as the cache has them: the lines that many dead letters have in common are kept once. Pure.

A search for a text then reads few long texts, and the rows are short.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

#: The condition of a text within an error or a traceback. A text has no end of a line.
CONTAINS = "(instr(last_line || error, :text) OR frames IN (SELECT id FROM frames WHERE instr(text, :text)))"


class Stored(NamedTuple):
    """A traceback in parts: ``text + last_line``, and ``error + ending`` unless ``ending`` is None.

    Attributes:
      id: The number of ``text``, by its content.
      text: The lines before the last one.
    """

    id: int
    text: str
    last_line: str
    ending: str | None


def stored(traceback: str, error: str) -> Stored:
    """Take a traceback apart, which ends with the text of its error, if that was not cut."""
    body = traceback.rstrip("\n")
    head, ending = traceback, None
    if error and body.endswith(error):
        head, ending = body[: len(body) - len(error)], traceback[len(body) :]
    cut = head.rfind("\n") + 1
    text = head[:cut]
    number = int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest(), signed=True)
    return Stored(number, text, head[cut:], ending)
