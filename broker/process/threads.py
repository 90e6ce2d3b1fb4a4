"""Starting threads from threads that may be interrupted."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable


def start_unwaited(target: Callable[[], object], *, name: str) -> bool:
    """Start a daemon thread, and do not wait until it runs; False in a process that ends, where Python starts
    none any more (from 3.12 on).

    Thread.start() waits for the new thread, which has its parent's id until it runs. An interrupt that
    Dramatiq raises in a worker's thread just then ends the new one instead, and the wait has no end. Here
    that wait is left to a thread in between. That one may be ended as well: whoever needs the thread looks
    whether it has begun.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        _thread.start_new_thread(thread.start, ())
    except RuntimeError:
        # There is none to be had for another reason, either: then the caller does it on its own.
        return False
    return True
