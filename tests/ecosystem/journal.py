"""The journal of the application that runs in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.broker.features.journal import Journal


def note(event: str, **details: Any) -> None:
    Journal(Path(os.environ["JOURNAL"])).note(event, **details)
