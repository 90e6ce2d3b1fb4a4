"""The application's own frames of a traceback. Pure."""

from __future__ import annotations

import re

_FRAME = re.compile(r'^\s*File "(?P<path>[^"]*)", line \d+')
_LIBRARIES = (
    "site-packages",
    "dist-packages",
    "/lib/python",
    "\\Lib\\",
    "<frozen",
    "/dramatiq/",
    "dramatiq_kafka_broker",
)


def own_frames(traceback: str) -> str:
    """The traceback without the frames of libraries, each run of which becomes one line that counts them.

    A traceback without an own frame is returned as it is.
    """
    kept: list[str] = []
    left_out = own = 0
    is_left_out = False

    def close_gap() -> None:
        nonlocal left_out
        if left_out:
            kept.append(f"  ... {left_out} frame{'' if left_out == 1 else 's'} of libraries")
        left_out = 0

    for line in traceback.rstrip().splitlines():
        if frame := _FRAME.match(line):
            is_left_out = any(part in frame["path"] for part in _LIBRARIES)
            left_out += is_left_out
            own += not is_left_out
        elif not line.startswith("    "):
            is_left_out = False
        if not is_left_out:
            close_gap()
            kept.append(line)
    close_gap()
    return "\n".join(kept) if own else traceback.rstrip()
