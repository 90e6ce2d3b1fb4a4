"""The two stacks: the embedded one from wheels, and real servers."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.account import reachable, unprivileged_account
from dev.postgres import PostgresServer, embedded_programs, system_programs

ROOT = Path(__file__).resolve().parent.parent
MIGRATIONS = ROOT / "migrations"
#: The embedded broker lets a consumer join only after half the session timeout; 6 s is Kafka's least.
EMBEDDED_ENV = {"KAFKA_SESSION_TIMEOUT_MS": "6000"}


@dataclass(frozen=True, slots=True)
class Stack:
    """A PostgreSQL database and a Kafka cluster that the service can use."""

    name: str
    bootstrap_servers: str
    database_url: str

    def env(self) -> dict[str, str]:
        """The variables that the service needs."""
        return {
            "DATABASE_URL": self.database_url,
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "MODEL_PATH": str(ROOT / "model.pkl"),
            **(EMBEDDED_ENV if self.name == "embedded" else {}),
        }


def embedded_postgres(home: Path, *, port: int, options: Mapping[str, str] | None = None) -> PostgresServer:
    """Return the wheel's PostgreSQL.

    Its cluster is in `home`, or in /var/tmp if its account cannot enter `home`.
    """
    account = unprivileged_account()
    home = reachable(home, account, fallback=_fallback(home))
    programs = embedded_programs(account, copies=home)
    return PostgresServer(home, programs=programs, port=port, account=account, options=options)


def system_postgres(home: Path, *, port: int, options: Mapping[str, str] | None = None) -> PostgresServer:
    """Return a new cluster of the PostgreSQL that is installed on this machine."""
    account = unprivileged_account()
    home = reachable(home, account, fallback=_fallback(home))
    return PostgresServer(home, programs=system_programs(), port=port, account=account, options=options)


def migrate(database_url: str) -> None:
    """Apply the migrations, with the command of `make migrate`.

    Raises:
      RuntimeError: It failed; the text has its output.
    """
    # A killed migration leaves yoyo's lock in the database. No other process migrates this database.
    for arguments in (["break-lock"], ["apply", str(MIGRATIONS)]):
        command = [str(Path(sys.executable).with_name("yoyo")), *arguments]
        done = subprocess.run(
            [*command, "--batch", "--no-config-file", "--database", database_url],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _fallback(home: Path) -> Path:
    return Path("/var/tmp") / f"ad-moderation-{hashlib.sha256(bytes(home.resolve())).hexdigest()[:12]}"
