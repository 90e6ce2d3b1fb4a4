"""The addresses of a reaper, and who may use them."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.reaper import addresses

MASTER = 4_000_000  # above the largest process id of most systems

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # The path of pytest's own directories is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="reaper") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)


def test_a_worker_finds_the_reaper_of_its_command_in_a_private_directory(runtime: Path) -> None:
    listener = addresses.listen(MASTER)
    try:
        path = Path(listener.address)
        assert path.is_relative_to(runtime)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        connection = addresses.connect(MASTER)
        assert connection is not None
        accepted, _ = listener.socket.accept()
        assert addresses.peer_pid(accepted) == os.getpid()
        connection.close()
        accepted.close()
        assert addresses.connect(MASTER + 1) is None
    finally:
        listener.close()
    assert not path.parent.exists()
    assert addresses.connect(MASTER) is None


def test_the_directories_of_reapers_that_were_killed_with_their_commands_are_removed(runtime: Path) -> None:
    killed, living = addresses.listen(MASTER), addresses.listen(MASTER + 1)
    killed.socket.close()  # without a removal of the file, as by SIGKILL
    running = runtime / Path(killed.address).parent.name.replace(str(MASTER), str(os.getpid()))
    running.mkdir(mode=0o700)  # of a command whose reaper does not listen yet
    foreign = runtime / "dramatiq-kafka-notes"
    foreign.mkdir()
    listener = addresses.listen(MASTER + 2)
    assert not Path(killed.address).parent.exists()
    assert Path(living.address).exists()
    assert running.exists()
    assert foreign.exists()
    living.close()
    listener.close()


def test_the_socket_of_a_dead_reaper_is_replaced() -> None:
    dead = addresses.listen(MASTER)
    dead.socket.close()  # without a removal of the file, as by SIGKILL
    assert addresses.connect(MASTER) is None
    listener = addresses.listen(MASTER)
    connection = addresses.connect(MASTER)
    assert connection is not None
    connection.close()
    dead.close()  # it leaves the file of its successor alone
    assert Path(listener.address).exists()
    listener.close()


def test_a_directory_that_others_may_enter_is_not_used(runtime: Path) -> None:
    path = Path(addresses.candidates(MASTER)[0])
    path.parent.mkdir()
    path.parent.chmod(0o755)
    listener = addresses.listen(MASTER)
    assert not listener.address.startswith(str(runtime))
    connection = addresses.connect(MASTER)
    assert connection is not None
    assert connection.getpeername() in (listener.address, listener.address.encode())
    connection.close()
    listener.close()


def test_a_read_only_system_has_a_name_without_a_file(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(runtime / "missing"))
    listener = addresses.listen(MASTER)
    assert listener.address.startswith("\0")
    connection = addresses.connect(MASTER)
    assert connection is not None
    connection.close()
    listener.close()


def test_a_path_that_is_too_long_for_a_socket_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "x" * 100)
    assert not any("x" * 100 in address for address in addresses.candidates(MASTER))


def test_the_peer_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with ours, theirs, pytest.raises(addresses.NotTrusted):
        addresses.peer_pid(ours)
