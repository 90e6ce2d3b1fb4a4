"""Counts finished tasks across the threads of all worker processes, for less than a microsecond a task.

Each worker thread owns one small file that it maps into its memory; the bench reads them all. Times are
CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "BENCH_TALLY"
GATE = "gate"
#: count, time of the last one (seconds); 8 bytes each
_SLOT = struct.Struct("dd")
_SAMPLES = ".samples"
_GATE_POLL_S = 0.002


class _Slot:
    """One thread's file."""

    def __init__(self, directory: Path) -> None:
        path = directory / f"{os.getpid()}-{threading.get_native_id()}"
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(file, _SLOT.size)
        self.numbers = memoryview(mmap.mmap(file, _SLOT.size)).cast("d")
        os.close(file)
        self.samples = os.open(f"{path}{_SAMPLES}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


class _Own(threading.local):
    slot: _Slot | None = None


_own = _Own()


def _begin() -> _Slot:
    """Create this thread's slot, and return when the bench has opened the gate.

    No thread starts before every thread holds a task: the boot is not measured.
    """
    directory = Path(os.environ[VARIABLE])
    _own.slot = slot = _Slot(directory)
    while not (directory / GATE).exists():
        time.sleep(_GATE_POLL_S)
    return slot


def note() -> None:
    """Count one finished task of this thread."""
    numbers = (_own.slot or _begin()).numbers
    numbers[1] = time.monotonic()
    numbers[0] += 1.0  # last: a reader that sees the count sees the time


def sample(value: float) -> None:
    """Store one number (a latency, in seconds) and count the task."""
    os.write((_own.slot or _begin()).samples, struct.pack("d", value))
    note()


def wait_for_gate() -> None:
    """Return once the bench has opened the gate: at once in every task but a thread's first."""
    if _own.slot is None:
        _begin()


@dataclass(frozen=True, slots=True)
class Total:
    """The work of all threads together.

    Attributes:
      threads: The number of threads that have begun.
      processes: The number of their processes.
      count: The number of finished tasks.
      last_s: The time at which the last of them finished; 0.0 without one.
    """

    threads: int
    processes: int
    count: int
    last_s: float


class Tally:
    """The bench's side.

    Parameters:
      directory: An empty directory for this tally alone; the variable `BENCH_TALLY` names it to the workers.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._slots: dict[str, memoryview] = {}

    def open_gate(self) -> float:
        """Let the tasks that wait begin, and return the time before the first of them."""
        opened_at_s = time.monotonic()
        (self.directory / GATE).touch()
        return opened_at_s

    def total(self) -> Total:
        for path in self.directory.iterdir():
            if path.suffix == "" and path.name not in self._slots and path.name != GATE:
                self._map(path)
        pairs = [_SLOT.unpack(view) for view in self._slots.values()]
        return Total(
            threads=len(pairs),
            processes=len({name.partition("-")[0] for name in self._slots}),
            count=int(sum(count for count, _ in pairs)),
            last_s=max((last_s for _, last_s in pairs), default=0.0),
        )

    def samples(self) -> list[float]:
        """Every number that the workers stored."""
        raw = b"".join(path.read_bytes() for path in self.directory.glob(f"*{_SAMPLES}"))
        return [value for (value,) in struct.iter_unpack("d", raw)]

    def _map(self, path: Path) -> None:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == _SLOT.size:
                self._slots[path.name] = memoryview(mmap.mmap(file.fileno(), _SLOT.size, prot=mmap.PROT_READ))
