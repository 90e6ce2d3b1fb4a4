"""What the tasks of several processes did, in one file, in order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """Lines of JSON. Each is written with one append, so those of different processes do not mix."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, event: str, **details: Any) -> None:
        line = json.dumps({"event": event, "pid": os.getpid(), **details}) + "\n"
        with self._path.open("ab", buffering=0) as file:
            file.write(line.encode())

    def entries(self, event: str, **details: Any) -> list[dict[str, Any]]:
        """The entries of one event, or those of them that have these details."""
        wanted = {"event": event, **details}
        return [entry for entry in self._read() if wanted.items() <= entry.items()]

    def entries_of(self, *events: str) -> list[dict[str, Any]]:
        """The entries of several events, in the order they were noted."""
        return [entry for entry in self._read() if entry["event"] in events]

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        # An append that is in progress may be visible in part.
        complete, _, _ = self._path.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in complete.splitlines()]
