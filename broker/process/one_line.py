"""Texts of others in log lines."""

from __future__ import annotations


def one_line(text: object) -> str:
    """A text without line ends and other characters that cannot be printed: those are shown as ``\\n``.

    A line end in the text of a record would otherwise begin a line that looks like another one of the log.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
