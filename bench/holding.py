"""Tasks that note each of their runs, for measurements that kill or stop workers.

A run is one record in one file, which all processes append to: it survives the SIGKILL of its writer. Times
are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from bench.tally import VARIABLE

#: number of the message, process id, time of the begin in seconds
_RUN = struct.Struct("qqd")
_FILE = "runs.held"
_GATE_POLL_S = 0.004


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a message.

    Attributes:
      began_s: Of the monotonic clock.
    """

    number: int
    pid: int
    began_s: float


def hold(number: int, gate: str) -> None:
    """Note the run, and wait until the file ``gate`` exists."""
    directory = _note(number)
    while not (directory / gate).exists():
        time.sleep(_GATE_POLL_S)


def last(number: int, duration_ms: float) -> None:
    """Note the run, and wait."""
    _note(number)
    time.sleep(duration_ms / 1000)


def _note(number: int) -> Path:
    directory = Path(os.environ[VARIABLE])
    file = os.open(directory / _FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, _RUN.pack(number, os.getpid(), time.monotonic()))
    os.close(file)
    return directory


def runs(directory: Path) -> list[Run]:
    """All runs, in the order in which they began."""
    path = directory / _FILE
    raw = path.read_bytes() if path.exists() else b""
    return [Run(*fields) for fields in _RUN.iter_unpack(raw[: len(raw) // _RUN.size * _RUN.size])]
