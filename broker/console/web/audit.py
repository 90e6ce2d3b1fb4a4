"""The console's own audit: who changed or looked at what, in a file that is only appended to."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any, TypedDict, cast

from ...process import clock
from ...process.strict_json import dumps

#: The entries that the page can show. The file keeps all.
MAX_SHOWN = 2_000


class AuditRow(TypedDict):
    """An entry. ``outcome`` says what became of it; ``source`` names who recorded it."""

    at_ms: int
    who: str
    what: str
    subject: str
    why: str
    outcome: str
    source: str


class Audit:
    """Appends entries to a file of JSON lines.

    Parameters:
      path: The file, readable by its owner alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._shown: deque[AuditRow] = deque(maxlen=MAX_SHOWN)
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if (row := _row_of(line)) is not None:
                    self._shown.append(row)

    def note(self, who: str, what: str, subject: str, *, why: str = "", outcome: str = "done") -> None:
        """Append an entry. It is on the disk when this returns.

        Raises:
          OSError: When it cannot be written; then the action must not be carried out.
        """
        row = AuditRow(
            at_ms=clock.wall_ms(),
            who=who,
            what=what,
            subject=subject,
            why=why,
            outcome=outcome,
            source="console",
        )
        line = dumps(row).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)
            os.fsync(self._file)
            self._shown.append(row)

    def rows(self) -> list[AuditRow]:
        """The latest entries, the oldest first."""
        with self._lock:
            return list(self._shown)

    def close(self) -> None:
        os.close(self._file)


def _row_of(line: str) -> AuditRow | None:
    """The entry of a line; None for a line that a crash has cut off."""
    try:
        found: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.keys() != AuditRow.__annotations__.keys():
        return None
    return cast(AuditRow, found)
