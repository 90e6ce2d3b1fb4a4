"""Child processes with a session and a log of their own, which never outlive their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from dev.account import Account
from dev.waiting import wait_until

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
STOP_TIMEOUT_S = 10.0
#: A signal takes effect once the process is scheduled.
KILL_TIMEOUT_S = 30.0


class ChildDied(RuntimeError):
    """A child process ended although it should still run; the text holds the last lines it wrote."""


class Child:
    """One child process.

    It runs in a session of its own: Ctrl-C in a terminal reaches only the parent, which stops its children in
    order. On Linux the kernel sends it `orphan_signal` when the parent dies before that.

    Parameters:
      name: For messages.
      command: The program and its arguments.
      log: File that its output is appended to.
      stop_signal: The signal of an orderly stop.
      orphan_signal: The signal at the parent's death; by default `stop_signal`. Only SIGKILL ends a paused
        process.
      account: Its account; by default the parent's.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        orphan_signal: signal.Signals | None = None,
        account: Account | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._env = env
        self._cwd = cwd
        self._stop_signal = stop_signal
        self._orphan_signal = orphan_signal or stop_signal
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs or was never started; negative when a signal ended it."""
        return self._process.poll() if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.is_running:
            raise RuntimeError(f"{self.name} runs already")
        account = f"{self._account.uid}:{self._account.gid}" if self._account else "-"
        launcher = [
            sys.executable,
            "-I",
            "-S",
            str(DIE_WITH_PARENT),
            str(os.getpid()),
            str(int(self._orphan_signal)),
            account,
        ]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                launcher + self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self._env) if self._env is not None else None,
                cwd=self._cwd,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise `ChildDied` unless it runs."""
        if not self.is_running:
            raise ChildDied(
                f"{self.name} ended with exit code {self.exit_code}. Its last lines:\n{self.tail()}"
            )

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return "(it wrote nothing)"
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:]) or "(it wrote nothing)"

    def ask_to_stop(self) -> None:
        """Send the stop signal and return at once."""
        if self.is_running:
            os.kill(self.pid, signal.SIGCONT)  # a paused process does not handle signals
            os.kill(self.pid, self._stop_signal)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop it in order, and kill it after `timeout_s`."""
        self.ask_to_stop()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
            self.kill()

    def kill(self) -> None:
        """Kill it, its descendants and the rest of its session (SIGKILL), and wait for their end."""
        process = self._process  # a supervisor may start another one meanwhile
        if process is None:
            return
        doomed = self._family()
        _signal(doomed, signal.SIGKILL)
        process.wait(KILL_TIMEOUT_S)
        wait_until(
            lambda: not any(map(_is_alive, doomed)),
            deadline_s=KILL_TIMEOUT_S,
            what=f"the descendants of {self.name}",
        )

    def pause(self) -> None:
        """Pause it and its descendants (SIGSTOP): connections stay open without answers."""
        family = self._family()
        _signal(family, signal.SIGSTOP)
        wait_until(
            lambda: all(map(_is_frozen, family)),
            deadline_s=KILL_TIMEOUT_S,
            what=f"{self.name} to stand still",
        )

    def resume(self) -> None:
        _signal(self._family(), signal.SIGCONT)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return the exit code."""
        wait_until(lambda: not self.is_running, deadline_s=timeout_s, what=f"the end of {self.name}")
        assert self.exit_code is not None
        return self.exit_code

    def _family(self) -> list[psutil.Process]:
        """Return it, its descendants, and the orphans of its session."""
        members: dict[int, psutil.Process] = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            members = {process.pid: process for process in [root, *root.children(recursive=True)]}
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(process.pid) == self.pid:
                    members.setdefault(process.pid, process)
        return [process for process in members.values() if _is_alive(process)]


def _signal(processes: Sequence[psutil.Process], signal_number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            process.send_signal(signal_number)


def _is_frozen(process: psutil.Process) -> bool:
    """Return whether all its threads are stopped. The signal works only once a thread is scheduled."""
    try:
        threads = [psutil.Process(thread.id) for thread in process.threads()] if psutil.LINUX else [process]
        return all(thread.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE) for thread in threads)
    except psutil.NoSuchProcess:
        return True


def _is_alive(process: psutil.Process) -> bool:
    """Return whether the process runs. A zombie does not: its parent has yet to read its exit code."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
