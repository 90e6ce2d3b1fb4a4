"""Starts threads from threads that Dramatiq may interrupt."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable


def start_unwaited(target: Callable[[], object], *, name: str) -> bool:
    """Start a daemon thread without waiting for it; False when Python starts no more threads, as from 3.12 on
    at the end of a process.

    Thread.start() waits for the new thread, which has the id of its parent until it runs. An interrupt that
    Dramatiq raises in the parent at that moment ends the new thread instead, and the wait never ends. Here an
    intermediate thread does the waiting. The interrupt may end that thread, too: the caller checks whether
    ``target`` has begun.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        _thread.start_new_thread(thread.start, ())
    except RuntimeError:
        # Or the system has no thread left. The caller then does the work itself.
        return False
    return True
