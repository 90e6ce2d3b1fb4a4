"""The servers that the settings name on this machine, and the check of their ports."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from dev.ports import HOST, is_taken
from dev.postgres import SUPERUSER
from dev.stack import ROOT
from settings import Settings, keys_are_required

LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
DEFAULT_KAFKA_PORT = 9092
DEFAULT_POSTGRES_PORT = 5432


class CannotRun(Exception):
    """The service cannot run here; the text is a sentence that names the necessary change."""


@dataclass(frozen=True, slots=True)
class LocalServers:
    """The addresses that the settings name, all on this machine.

    Parameters:
      needs_keys: Whether the API needs keys.
      dev_dir: The directory of data and logs, kept between runs.
    """

    database: str
    postgres_port: int
    kafka_port: int
    api_host: str
    api_port: int
    needs_keys: bool
    dev_dir: Path

    @property
    def api_url(self) -> str:
        return f"http://{self.api_host}:{self.api_port}"

    @classmethod
    def from_settings(cls, settings: Settings) -> LocalServers:
        """Return the servers of the settings.

        Raises:
          CannotRun: The settings name servers of other machines.
        """
        url = make_url(settings.database_url)
        if (url.host or "localhost") not in LOCAL_HOSTS or url.username != SUPERUSER or not url.database:
            raise CannotRun(
                "this starts a PostgreSQL of its own, so DATABASE_URL must look like "
                f"postgresql://{SUPERUSER}@localhost:5433/moderation: change or unset it"
            )
        host, _, port = settings.kafka_bootstrap_servers.partition(":")
        if host not in LOCAL_HOSTS or not (port or str(DEFAULT_KAFKA_PORT)).isdigit():
            raise CannotRun(
                "this starts a Kafka of its own, so KAFKA_BOOTSTRAP_SERVERS must look like localhost:9092: "
                "change or unset it"
            )
        if settings.api_port == 0:
            raise CannotRun("API_PORT must be a port's number here: change or unset it")
        return cls(
            database=url.database,
            postgres_port=url.port or DEFAULT_POSTGRES_PORT,
            kafka_port=int(port or DEFAULT_KAFKA_PORT),
            api_host=settings.api_host,
            api_port=settings.api_port,
            needs_keys=keys_are_required(
                settings.api_keys, HOST if settings.api_host in LOCAL_HOSTS else settings.api_host
            ),
            dev_dir=Path(os.environ.get("DEV_DIR", ROOT / ".dev")).resolve(),
        )

    def check_ports(self) -> None:
        """Check that every port is free.

        Raises:
          CannotRun: A port is taken; the text names it and the variable to set.
        """
        database_url = f"postgresql://{SUPERUSER}@localhost:{self.postgres_port + 1}/{self.database}"
        for port, what, instead in (
            (self.postgres_port, "PostgreSQL", f"DATABASE_URL={database_url}"),
            (self.kafka_port, "Kafka", f"KAFKA_BOOTSTRAP_SERVERS=localhost:{self.kafka_port + 1}"),
            (self.api_port, "the API", f"API_PORT={self.api_port + 1}"),
        ):
            if _is_taken(port):
                raise CannotRun(
                    f"port {port}, for {what}, is in use: stop what uses it, or choose another with {instead}"
                )


def _is_taken(port: int) -> bool:
    try:
        return is_taken(port)
    except OSError as error:
        raise CannotRun(f"port {port} cannot be used: {error.strerror}") from error
