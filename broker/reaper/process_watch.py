"""Notices the end of a process that is no child of this one."""

from __future__ import annotations

import os
import signal
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

#: ``PIDFD_GET_INFO`` and its struct of Linux 6.13 (linux/pidfd.h): mask, cgroup id, eleven ids,
#: exit code. The exit code is known from Linux 6.15 on, after the parent has been told of the end.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO = struct.Struct("=QQ11Ii")
_PIDFD_INFO_EXIT = 1 << 3
#: The field ``exit_code`` of /proc/{pid}/stat, counted after the name of the program.
_STAT_EXIT_CODE = 49


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a process.

    Attributes:
      code: Its exit code; None when a signal ended it, or the code is not known.
      signal: The number of the signal that ended it; None without one, or when it is not known.
    """

    code: int | None = None
    signal: int | None = None

    @classmethod
    def from_wait_status(cls, wait_status: int) -> Exit:
        """From the number that ``waitpid`` gives."""
        signal = wait_status & 0x7F
        return cls(signal=signal) if signal else cls(code=wait_status >> 8 & 0xFF)

    def __str__(self) -> str:
        if self.signal is not None:
            return f"signal {self.signal}"
        return "an unknown exit code" if self.code is None else f"exit code {self.code}"


class ProcessWatch:
    """A file that becomes readable when a process ends.

    Linux has such files (pidfd). Elsewhere there is none, and the end of a connection counts as the end of
    the process: the system closes it, but also keeps it open for a child of the process that has inherited
    it.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._file: int | None = None
        #: Whether the process had ended already.
        self.has_ended = False
        if pid > 0 and hasattr(os, "pidfd_open"):
            try:
                self._file = os.pidfd_open(pid)
            except ProcessLookupError:
                self.has_ended = True
            except OSError:  # refused in some sandboxes
                self._file = None

    @property
    def can_watch(self) -> bool:
        """Whether :meth:`fileno` gives a file."""
        return self._file is not None

    def fileno(self) -> int:
        assert self._file is not None
        return self._file

    def exit(self) -> Exit:
        """The end of the process, as far as the system still knows it."""
        for look_up in (self._from_pidfd, self._from_proc, self._from_pidfd):
            if (wait_status := look_up()) is not None:
                return Exit.from_wait_status(wait_status)
        return Exit()

    def kill(self) -> None:
        """Kill the process with SIGKILL, which it cannot refuse. One that has ended is left alone.

        Raises:
          OSError: When the system refuses it.
        """
        try:
            if self._file is not None and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(self._file, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.has_ended = True

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _from_pidfd(self) -> int | None:
        if self._file is None or sys.platform != "linux":
            return None
        import fcntl  # not on every system

        answer = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *[0] * 13))
        try:
            fcntl.ioctl(self._file, _PIDFD_GET_INFO, answer)
        except OSError:  # before Linux 6.13
            return None
        fields = _PIDFD_INFO.unpack(answer)
        return fields[-1] & 0xFFFF if fields[0] & _PIDFD_INFO_EXIT else None

    def _from_proc(self) -> int | None:
        """From the entry of a process whose parent has not been told of its end yet."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        if len(fields) <= _STAT_EXIT_CODE or fields[0] not in ("Z", "X"):
            return None
        return int(fields[_STAT_EXIT_CODE])
