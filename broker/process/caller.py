"""Who gives an operator's command, as this process names it."""

from __future__ import annotations

import getpass
import os
import socket


def caller() -> str:
    """The user of this process, as resolutions and commands name them: ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
