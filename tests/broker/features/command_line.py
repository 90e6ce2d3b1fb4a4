"""Runs the `dramatiq` command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from dev.child import Child
from dev.stack import ROOT
from tests.waiting import wait_until

READY = "Worker process is ready for action."
BOOT_TIMEOUT_S = 60


class CommandLine(Child):
    """One run of `dramatiq`.

    Parameters:
      arguments: The application's module and the options.
      program: `dramatiq`, or another one of this environment that starts it.
    """

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str],
        log: Path,
        program: str = "dramatiq",
        cwd: Path = ROOT,
    ) -> None:
        super().__init__(
            program, [Path(sys.executable).with_name(program), *arguments], log=log, env=env, cwd=cwd
        )

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def wait_for_boots(self, count: int) -> None:
        """Wait until so many worker processes have booted since the start.

        Raises:
          ChildDied: It ended instead.
        """

        def booted() -> bool:
            self.check()
            return self.output().count(READY) >= count

        wait_until(booted, deadline_s=BOOT_TIMEOUT_S, what=f"{count} worker processes to boot")
