"""The entry point of the reaper: a process that Dramatiq's command line starts after its workers."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from . import addresses
from .death_note import command_name
from .process_watch import ProcessWatch
from .reaper import Reaper

if TYPE_CHECKING:
    from .members import Removal

logger = logging.getLogger(__name__)


def run_reaper() -> int:
    """Serve the workers of this command until they have ended; return the exit status.

    Dramatiq finds this function by its name in ``Middleware.forks``, and calls it in the main thread of a
    process without the application.
    """
    _close_inherited_pipes()
    parent = multiprocessing.parent_process()
    master_pid = os.getppid() if parent is None or parent.pid is None else parent.pid
    master = ProcessWatch(master_pid)
    try:
        listener = addresses.listen(master_pid)
    except OSError as e:
        logger.warning(
            "The reaper has no place for a socket, so the partitions of a killed worker move only after the "
            "session timeout: %s",
            e,
        )
        return 0
    try:
        end_of_command = master if master.can_watch else None if parent is None else parent.sentinel
        reaper = Reaper(
            listener.socket,
            end_of_command,
            command_name(master_pid),
            bury=lambda dead: _removal().remove(dead),
            prepare=_removal,
            announce=lambda introduction, limited: _removal().announce(introduction, limited),
        )
        if master.has_ended:
            reaper.stop()
        _stop_with_workers(reaper)
        reaper.run()
        signal.set_wakeup_fd(-1)
        reaper.close()
    finally:
        listener.close()
    return 0


@functools.cache
def _removal() -> Removal:
    """The treatment of dead workers.

    Its import of kafka-python takes a quarter of a second of processor time. What workers send meanwhile
    waits in their sockets.
    """
    from ..kafka.log_filter import drop_info_logs
    from .members import Removal

    drop_info_logs()
    return Removal()


def _stop_with_workers(reaper: Reaper) -> None:
    """Let no signal end this process before its workers.

    A command sends SIGTERM to all its processes when a worker dies, and again at its own end.
    """

    def stop(signum: int, frame: object) -> None:
        reaper.stop()

    signal.set_wakeup_fd(reaper.waker.fileno(), warn_on_full_buffer=False)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, stop)


def _close_inherited_pipes() -> None:
    """Close the reading ends of pipes, which a forked process inherits from its command.

    A command reads the log lines of its workers from pipes. When it was killed, its workers must get an
    error from the next line. While this process has a reading end, they would block once the pipe is full.
    """
    import fcntl  # not on every system

    directory = Path("/proc/self/fd")
    if not directory.is_dir():
        return
    parent = multiprocessing.parent_process()
    kept = {0, 1, 2, parent.sentinel if parent is not None else -1}
    for file in [int(entry.name) for entry in directory.iterdir()]:
        try:
            is_pipe = stat.S_ISFIFO(os.fstat(file).st_mode)
            is_read = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        except OSError:  # the file of this listing
            continue
        if is_pipe and is_read and file not in kept:
            os.close(file)
