"""What really ran, written by the tasks themselves and read from outside."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


class LedgerWriter:
    """Appends a line for each event.

    One ``write`` to a file opened with O_APPEND is not torn by other processes, and what was written survives
    the SIGKILL of its writer (though not of the machine, which nobody kills here).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._lock = threading.Lock()

    def write(self, event: str, number: int) -> None:
        with self._lock:
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(self._file, (json.dumps([event, number, os.getpid()]) + "\n").encode())


@dataclass
class Entries:
    """What the ledger held when it was read.

    Attributes:
      started: How often each task was started.
      done: How often each task came to its end.
      processes: The processes that each task was started in.
      memory: The resident memory of a worker, in bytes, as it went.
    """

    started: Counter[int] = field(default_factory=Counter)
    done: Counter[int] = field(default_factory=Counter)
    processes: dict[int, list[int]] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)

    @property
    def repeats(self) -> int:
        """Executions beyond the first of each task."""
        return sum(self.started.values()) - len(self.started)

    @property
    def workers(self) -> set[int]:
        """The processes that any task was started in."""
        return {process for processes in self.processes.values() for process in processes}


class OutsideLedger:
    """Reads what the workers have written, each time from where it left off.

    What :meth:`read` returns is one object, which the next call brings up to date.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = Entries()
        self._position = 0

    def read(self) -> Entries:
        entries = self._entries
        if not self.path.exists():
            return entries
        with self.path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._position += len(line)
                event, number, process = json.loads(line)
                if event == "start":
                    entries.started[number] += 1
                    entries.processes.setdefault(number, []).append(process)
                elif event == "done":
                    entries.done[number] += 1
                elif event == "memory":
                    entries.memory.append(number)
        return entries
