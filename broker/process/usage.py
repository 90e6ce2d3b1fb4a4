"""What this process uses of its host."""

from __future__ import annotations

import os
from pathlib import Path

_STATM = Path("/proc/self/statm")


def rss_bytes() -> int | None:
    """The resident memory of this process; None where the system does not tell it."""
    try:
        pages = int(_STATM.read_bytes().split()[1])
    except (OSError, IndexError, ValueError):  # not Linux
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_s() -> float:
    """The processor seconds of this process, of all its threads."""
    times = os.times()
    return times.user + times.system
