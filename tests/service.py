"""The product's own commands as children of a test: ``python main.py`` and ``dramatiq tasks``."""

import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from dev.child import Child
from dev.ports import HOST, free_port, is_listening
from dev.stack import ROOT
from tests.waiting import wait_until

START_TIMEOUT_S = 90.0


class Api:
    """``python main.py`` on a free port.

    Parameters:
      root: The directory of the program.
    """

    def __init__(self, home: Path, env: Mapping[str, str], *, root: Path = ROOT) -> None:
        self.port = free_port()
        self.child = Child(
            "the API",
            [sys.executable, "main.py"],
            log=home / "api.log",
            env={"API_PORT": str(self.port), **env},
            cwd=root,
        )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        self.child.start()
        wait_until(self._listens, deadline_s=START_TIMEOUT_S, what="the API to listen")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def _listens(self) -> bool:
        self.child.check()
        return is_listening(self.port)


class Worker:
    """``dramatiq tasks``.

    Parameters:
      root: The directory of the program.
    """

    def __init__(
        self,
        home: Path,
        env: Mapping[str, str],
        *,
        processes: int = 1,
        threads: int = 4,
        module: str = "tasks",
        root: Path = ROOT,
    ) -> None:
        self.child = Child(
            "the worker",
            [
                Path(sys.executable).with_name("dramatiq"),
                "tasks",
                "--processes",
                str(processes),
                "--threads",
                str(threads),
            ],
            log=home / "worker.log",
            env=env,
            cwd=root,
        )

    def start(self) -> None:
        self.child.start()
        wait_until(self._is_ready, deadline_s=START_TIMEOUT_S, what="the worker to be ready")

    def _is_ready(self) -> bool:
        self.child.check()
        return "Worker process is ready for action." in self.child.tail(200)
