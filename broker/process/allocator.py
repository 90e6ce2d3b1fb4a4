"""Keeps the memory of a process small with glibc's allocator. Other C libraries are left as they are."""

from __future__ import annotations

import ctypes
import sys

#: Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
#: A larger block is a mapping of its own, which is returned when it is freed. Without a fixed threshold, the
#: first large block that is freed raises it, and the next one stays in its arena.
LARGE_BLOCK_BYTES = 256 * 1024
#: The free memory at the end of an arena above which it is returned.
KEPT_BYTES = 1024 * 1024
#: Each thread gets an arena otherwise, and keeps what it once needed.
ARENAS = 2


def return_freed_memory() -> bool:
    """Return memory to the system soon after it is freed. For processes with threads and a bounded memory.

    Call it before the process starts threads.

    Returns:
      Whether the C library has these settings.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_THRESHOLD, LARGE_BLOCK_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES), (_ARENA_MAX, ARENAS))
    return all(mallopt(name, value) == 1 for name, value in settings)
