"""Runs a module in a process whose clock is wrong.

    python -m tests.broker.parts.delays.shifted_clock FILE MODULE ARGUMENT...

The clock is ahead by the number of seconds in FILE, which may change at any time. It is shifted before
anything else is imported: kafka-python keeps the clock that it finds then.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path


def shift_clock(file: Path) -> None:
    right_time, right_time_ns = time.time, time.time_ns
    time.time = lambda: right_time() + float(file.read_text() or 0)
    time.time_ns = lambda: right_time_ns() + int(float(file.read_text() or 0) * 1_000_000_000)


if __name__ == "__main__":
    shift_clock(Path(sys.argv[1]))
    module, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
