"""The addresses at which a reaper listens for the workers of its command."""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

#: The longest path of a Unix socket that every system accepts (sockaddr_un.sun_path; 108 on Linux).
MAX_PATH_BYTES = 103
SOCKET_NAME = "reaper"
#: ``struct ucred``: pid, uid, gid.
_UCRED = struct.Struct("3i")


class NotTrusted(Exception):
    """The directory or the peer of a socket belongs to another user."""


def candidates(master_pid: int) -> list[str]:
    """The addresses for the reaper of a command, in the order in which it tries to listen.

    They are in the runtime directory of the user and in the directory for temporary files. A read-only system
    has neither; Linux has a name without a file then, whose listener and clients are known by their user id.

    Parameters:
      master_pid: The process id of the command.
    """
    name = f"{_prefix()}{master_pid}"
    directories = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()]
    paths = [str(Path(directory) / name / SOCKET_NAME) for directory in directories if directory]
    found = [path for path in dict.fromkeys(paths) if len(os.fsencode(path)) <= MAX_PATH_BYTES]
    if sys.platform == "linux":
        found.append(f"\0{name}")
    return found


class Listener:
    """A non-blocking socket that listens at an address.

    Raises:
      OSError: When the address cannot be used.
      NotTrusted: When its directory is another user's.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = _listen_at(address)
        self._file = None if _is_abstract(address) else _identity(Path(address))

    def close(self) -> None:
        """Stop listening, and remove the socket and its directory."""
        self.socket.close()
        if self._file is None:
            return
        path = Path(self.address)
        try:
            if _identity(path) != self._file:
                return  # the reaper that began after a reload listens there
            path.unlink()
            path.parent.rmdir()
        except OSError as e:
            logger.debug("The directory of a reaper's socket stays: %s", e)


def listen(master_pid: int) -> Listener:
    """Listen at the first address that can be used.

    Raises:
      OSError: When no address can be used.
    """
    failure = OSError("no directory for a socket: TMPDIR and XDG_RUNTIME_DIR are too long, or not writable")
    for address in candidates(master_pid):
        try:
            return Listener(address)
        except (OSError, NotTrusted) as e:
            failure = OSError(f"{failure}; {_shown(address)}: {e}")
    raise failure


def connect(master_pid: int) -> socket.socket | None:
    """Connect to the reaper of a command; None when it does not listen, or not yet.

    The worker tells the reaper secrets, so an address of another user is left out.
    """
    for address in candidates(master_pid):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if not _is_abstract(address):
                check_directory(Path(address).parent)
            connection.connect(address)
            peer_pid(connection)
        except (OSError, NotTrusted) as e:
            logger.debug("No reaper at %s: %s", _shown(address), e)
            connection.close()
        else:
            return connection
    return None


def peer_pid(connection: socket.socket) -> int:
    """The process id of the other end of a connection; 0 where the system does not tell it.

    Raises:
      NotTrusted: When the other end runs as another user.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return 0  # the directory, which no other user may enter, protects the socket
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(credentials)
    if uid != os.geteuid():
        raise NotTrusted(f"the other end runs as user {uid}, not as {os.geteuid()}")
    return int(pid)


def check_directory(directory: Path) -> None:
    """Check that a directory is this user's, and that no other user may enter it.

    Raises:
      NotTrusted: When it is not.
      OSError: When there is no such directory.
    """
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise NotTrusted(f"{directory} is not a directory that only user {os.geteuid()} may enter")


def _listen_at(address: str) -> socket.socket:
    if not _is_abstract(address):
        path = Path(address)
        _remove_abandoned(path.parent.parent)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        check_directory(path.parent)
        path.unlink(missing_ok=True)  # of an earlier process with the same id, or of the one before a reload
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _prefix() -> str:
    return f"dramatiq-kafka-{os.geteuid()}-{_pid_namespace()}"


def _remove_abandoned(directory: Path) -> None:
    """Remove the directories of reapers that were killed with their commands: nobody else does."""
    for abandoned in directory.glob(f"{_prefix()}[0-9]*"):
        path = abandoned / SOCKET_NAME
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            check_directory(abandoned)
            if _is_running(abandoned.name.removeprefix(_prefix())):
                continue  # its reaper may be about to listen
            try:
                probe.connect(str(path))
            except FileNotFoundError:
                abandoned.rmdir()
            except ConnectionRefusedError:
                path.unlink()
                abandoned.rmdir()
        except (OSError, NotTrusted) as e:
            logger.debug("%s stays: %s", abandoned, e)
        finally:
            probe.close()


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError, ValueError):
        return True
    return True


def _pid_namespace() -> str:
    """A prefix that distinguishes containers which share a directory: their commands often have pid 1."""
    try:
        found = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{found.name.strip('pid:[]')}-"


def _identity(path: Path) -> tuple[int, int]:
    """Distinguishes a file from a later one of the same name, which may have the same inode."""
    found = path.lstat()
    return found.st_ino, found.st_mtime_ns


def _is_abstract(address: str) -> bool:
    return address.startswith("\0")


def _shown(address: str) -> str:
    return address.replace("\0", "@")
