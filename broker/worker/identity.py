"""The identity of a worker process: the key of its reports, and the name by which operators address it."""

from __future__ import annotations

import os
import socket

from ..process import clock
from ..process.forks import reset_on_fork


class WorkerIdentity:
    """The identity of this process's worker. The id is new at each boot of a worker.

    Attributes:
      worker_id: ``{host}:{pid}:{8 hex digits}``. The digits distinguish two boots with the same process id,
        as that of a container's first process is always 1.
      host: The name of the host.
      pid: The process id.
      booted_ms: The time of the boot, in milliseconds since 1970.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Be another worker: the old identity belongs to the parent."""
        self.begin_boot()

    def begin_boot(self) -> None:
        """Begin the life of a worker, with a new id."""
        self.host = socket.gethostname()
        self.pid = os.getpid()
        self.booted_ms = clock.wall_ms()
        self.worker_id = f"{self.host}:{self.pid}:{os.urandom(4).hex()}"
