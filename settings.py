"""The settings, read from the environment and from a file `.env`.

`.env.example` lists every variable.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from db.engine import psycopg2_url


class SettingsRefused(Exception):
    """The environment holds an unusable value; the text names the variables and the errors."""


def _of_postgresql(url: str) -> str:
    psycopg2_url(url)
    return url


def _of_web(url: str) -> str:
    if url and not re.match(r"https?://[^/\s]", url):
        raise ValueError("is no URL such as http://127.0.0.1:9180/")
    return url


class Settings(BaseSettings):
    """The product's settings. A field's name in capitals is its environment variable."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore"
    )

    database_url: Annotated[str, AfterValidator(_of_postgresql)] = (
        "postgresql://user@localhost:5433/moderation"
    )
    database_pool_size: int = Field(default=10, ge=1, description="connections a process keeps at most")
    database_connect_timeout_s: int = Field(default=3, ge=1)
    database_statement_timeout_s: float = Field(default=10.0, gt=0)

    model_path: str = "model.pkl"
    shadow_model_path: str = Field(
        default="", description="a second model, whose verdicts are only compared; empty for none"
    )
    violation_share: float | None = Field(
        default=None, gt=0, lt=1, description="of the site's ads; None for that of the calibration ads"
    )

    kafka_bootstrap_servers: str = "localhost:9092"
    kafka_namespace: str = Field(default="", description="prefix of every topic's name")
    kafka_group_id: str = "dramatiq"
    kafka_partitions: int = Field(default=4, ge=1, description="of a topic that does not exist yet")
    kafka_replication: int = Field(
        default=0, ge=0, description="of a topic that does not exist yet; 0: 3 on three nodes, or the default"
    )
    kafka_session_timeout_ms: int = Field(
        default=10_000, ge=6_000, description="after which a worker that died without a word loses its work"
    )
    tracing: bool = Field(
        default=False, description="whether messages are traced; the SDK comes from opentelemetry-instrument"
    )
    kafka_client_options: dict[str, Any] = Field(
        default_factory=dict, description="JSON object passed to kafka-python as it is: SASL, TLS, client id"
    )

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=0, le=65535)
    api_keys: Literal["auto", "on", "off"] = Field(
        default="auto", description="whether requests need a key; auto: unless the address is loopback"
    )
    console_url: Annotated[str, AfterValidator(_of_web)] = Field(
        default="", description="of the web console, to which the first page of the API links; empty for none"
    )
    api_workers: int = Field(default=1, ge=1, description="API processes")
    api_shutdown_timeout_s: float = Field(
        default=5.0, gt=0, description="how long SIGTERM waits for requests in flight"
    )

    api_max_waiting: int = Field(
        default=4_000, ge=1, description="requests of a kind that wait for PostgreSQL; one more gets a 503"
    )
    api_max_long_polls: int = Field(default=4_000, ge=1, description="at once, in one process")
    api_max_connections: int = Field(default=8_000, ge=1, description="at once, in one process")
    api_max_connections_per_client: int = Field(
        default=4_000, ge=1, description="of one address: behind a proxy that is the proxy's"
    )
    api_first_byte_timeout_s: float = Field(
        default=15.0, gt=0, description="from a connection to its first byte"
    )
    api_request_timeout_s: float = Field(
        default=20.0, gt=0, description="from the first byte of a request to its last"
    )
    api_max_body_bytes: int = Field(
        default=64_000_000, ge=1_000_000, description="of all bodies at once, in one process"
    )
    idempotency_key_ttl_s: float = Field(default=86_400.0, gt=0, description="how long a key is remembered")

    # During a lease the relay leaves the row to the process that sends it: a lease must outlast a send.
    publish_lease_s: float = Field(default=30.0, ge=15)
    relay_interval_s: float = Field(default=1.0, gt=0, description="between two looks of the relay")
    retry_first_wait_s: float = Field(
        default=2.0, gt=0, description="before attempt 2; attempt 3 waits three times that"
    )


def keys_are_required(setting: Literal["auto", "on", "off"], address: str) -> bool:
    """Return whether requests need a key.

    Parameters:
      address: The IP address that the server listens on. Only a loopback one needs no keys by default.
    """
    if setting != "auto":
        return setting == "on"
    try:
        return not ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Read the settings once for this process.

    Raises:
      SettingsRefused: A variable cannot be used; the text names each of them.
    """
    try:
        return Settings()
    except SettingsError as error:  # the only variable with JSON holds no JSON
        raise SettingsRefused(
            "Correct the environment: KAFKA_CLIENT_OPTIONS: must be a JSON object"
        ) from error
    except ValidationError as error:
        # A value may be a secret, so it is not repeated.
        wrong = [
            f"{str(problem['loc'][0]).upper()}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise SettingsRefused("Correct the environment: " + "; ".join(wrong)) from error
