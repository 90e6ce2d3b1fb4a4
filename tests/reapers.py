"""What tests see of the reaper of a command from outside."""

from __future__ import annotations

import re
from collections.abc import Sequence

import psutil

_READY = re.compile(r"\[PID (\d+)\].*run_reaper' is ready")


def reaper_pids(log: Sequence[str]) -> list[int]:
    """The reapers that a command has started so far, by the lines of its log."""
    return [int(found[1]) for found in map(_READY.search, log) if found is not None]


def registrations(pid: int) -> int:
    """The number of workers that are registered with a reaper; 0 when it is gone."""
    try:
        connections = psutil.Process(pid).net_connections("unix")
    except psutil.NoSuchProcess:
        return 0
    # One of them is the listener.
    return max(0, sum("reaper" in str(connection.laddr) for connection in connections) - 1)
