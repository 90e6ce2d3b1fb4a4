"""A real PgBouncer in front of the PostgreSQL of a test."""

import shutil
import signal
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url

from dev.account import unprivileged_account
from dev.child import Child
from dev.ports import HOST
from dev.server import Server


class PgBouncer(Server):
    """A PgBouncer for one database, with its defaults but for what a test needs.

    Parameters:
      home: Directory for its configuration and its log; the account of PostgreSQL must be able to enter it.
      database_url: Of PostgreSQL.
      pool_mode: ``session`` or ``transaction``.
      settings: Further lines of pgbouncer.ini.
    """

    name = "PgBouncer"

    def __init__(self, home: Path, *, port: int, database_url: str, pool_mode: str, **settings: str) -> None:
        target = make_url(database_url)
        self._database = str(target.database)
        server = {
            "host": target.host,
            "port": target.port,
            "user": target.username,
            "password": target.password,
        }
        lines = {
            "listen_addr": HOST,
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": pool_mode,
            **settings,
        }
        self._configuration = home / "pgbouncer.ini"
        self._text = (
            f"[databases]\n{self._database} = "
            + " ".join(f"{name}='{value}'" for name, value in server.items() if value is not None)
            + "\n[pgbouncer]\n"
            + "\n".join(f"{name} = {value}" for name, value in lines.items())
            + "\n"
        )
        child = Child(
            self.name,
            [_program(), self._configuration],
            log=home / "pgbouncer.log",
            cwd=home,
            stop_signal=signal.SIGTERM,  # at once; SIGINT would wait for the clients
            account=unprivileged_account(),  # it refuses to run as root
        )
        super().__init__(child, home=home, port=port)

    @property
    def url(self) -> str:
        """The URL of the database, through the pooler."""
        return f"postgresql://client@{self.address}/{self._database}"

    @property
    def warnings(self) -> list[str]:
        """The lines of its log that report a trouble."""
        lines = self.child.log.read_text(errors="replace").splitlines()
        return [line for line in lines if any(word in line for word in (" WARNING ", " ERROR ", " FATAL "))]

    def prepare(self) -> None:
        self._configuration.write_text(self._text)

    def answers(self) -> bool:
        try:
            psycopg2.connect(self.url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True


def _program() -> str:
    """Return the path of PgBouncer; skip the test where it is not installed."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    return program
