"""The worker processes of a measurement, and their memory."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

import psutil

from bench.delays.ground import MARKERS, Ground
from dev.child import Child
from dev.stack import ROOT

WATCH_INTERVAL_S = 0.2


class Crew:
    """Workers that forward a ground's delays. Use it as a context manager: it kills them at the end.

    Attributes:
      peak_mb: The largest resident memory of one of them.
    """

    def __init__(self, ground: Ground, processes: int = 1) -> None:
        arguments = [ground.server.address, ground.namespace, str(ground.index_dir)]
        command = [sys.executable, "-m", "bench.delays.worker", *arguments]
        log = ground.home / f"{ground.namespace}workers.log"
        self._ground = ground
        self._children = [
            Child(f"worker {number}", command, log=log, cwd=ROOT) for number in range(processes)
        ]
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._watch_memory, daemon=True)
        self.peak_mb = 0.0

    def __enter__(self) -> Crew:
        for child in self._children:
            child.start()
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._watch.join()
        self.kill()

    def kill(self) -> None:
        """SIGKILL all of them."""
        for child in self._children:
            child.kill()

    def wait_until_ready(self) -> None:
        """Wait until they serve every partition."""
        expected = self._ground.arrived() + MARKERS
        self._ground.send_markers()
        self._ground.wait_for(expected)

    def memory_mb(self) -> float:
        """The largest resident memory of one of them now."""
        return max((_rss_mb(child) for child in self._children if child.is_running), default=0.0)

    def _watch_memory(self) -> None:
        while not self._over.wait(WATCH_INTERVAL_S):
            self.peak_mb = max(self.peak_mb, self.memory_mb())


def _rss_mb(child: Child) -> float:
    try:
        return float(psutil.Process(child.pid).memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0
