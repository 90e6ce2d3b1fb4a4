"""Makes kafka-python clients. Nothing connects until one of these methods is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from .errors import KafkaUnavailable
from .quiet import quieten_kafka_python

#: How long a client may take to find the cluster before it says that Kafka is away.
BOOTSTRAP_TIMEOUT_MS = 5_000
#: kafka-python's own ceiling of 30 s would leave a worker idle long after Kafka is back.
RECONNECT_BACKOFF_MAX_MS = 1_000
#: How old what a client knows of its topics may be. Partitions that were added are served, and sent to, after
#: that long; kafka-python's own five minutes would let the messages in them wait.
METADATA_MAX_AGE_MS = 5_000
#: Decided by this broker's guarantees; a caller's option of that name would break one of them silently.
RESERVED_OPTIONS = frozenset(
    {
        "bootstrap_servers", "group_id", "enable_auto_commit", "auto_offset_reset", "acks",
        "enable_idempotence", "partition_assignment_strategy", "delivery_timeout_ms", "isolation_level",
        "allow_auto_create_topics", "key_serializer", "value_serializer", "key_deserializer",
        "value_deserializer", "transactional_id",
    }
)  # fmt: skip


class Clients:
    """The one place that knows how to reach the cluster.

    Each method makes a client that has found it, and raises KafkaUnavailable when that takes longer than the
    option ``bootstrap_timeout_ms``, or than ``within_s``.

    Parameters:
      bootstrap_servers: ``host:port``, several separated by commas, or a list of them.
      options: What else every kafka-python client is to be given: ``security_protocol``, ``sasl_*``,
        ``ssl_*``, ``client_id``...

    Raises:
      ValueError: When an option is unknown, or is one that the broker's guarantees depend on.
    """

    def __init__(self, bootstrap_servers: str | list[str], options: Mapping[str, Any] | None = None) -> None:
        options = dict(options or {})
        if reserved := RESERVED_OPTIONS.intersection(options):
            raise ValueError(
                f"client_options may not set {sorted(reserved)}: the broker's guarantees rest on them"
            )
        known = set().union(
            *(kind.DEFAULT_CONFIG for kind in (KafkaProducer, KafkaConsumer, KafkaAdminClient))
        )
        if unknown := set(options) - known:
            raise ValueError(f"client_options {sorted(unknown)} are not settings of any kafka-python client")
        servers = (
            bootstrap_servers.split(",") if isinstance(bootstrap_servers, str) else list(bootstrap_servers)
        )
        self.bootstrap_servers = [server.strip() for server in servers]
        self._options: dict[str, Any] = {
            "client_id": "dramatiq",
            "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
            "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
            "metadata_max_age_ms": METADATA_MAX_AGE_MS,
            "metrics_enabled": False,
            **options,
            "bootstrap_servers": self.bootstrap_servers,
        }

    @property
    def compresses(self) -> bool:
        """Whether a record may be smaller on its way than it is."""
        return bool(self._options.get("compression_type"))

    def producer(self, *, within_s: float | None = None, **settings: Any) -> KafkaProducer:
        return self._connect(KafkaProducer, settings, within_s)

    def consumer(self, **settings: Any) -> KafkaConsumer:
        return self._connect(
            KafkaConsumer, {"enable_auto_commit": False, "allow_auto_create_topics": False, **settings}
        )

    @contextmanager
    def admin(self, *, within_s: float | None = None, **settings: Any) -> Iterator[KafkaAdminClient]:
        admin = self._connect(KafkaAdminClient, settings, within_s)
        try:
            yield admin
        finally:
            admin.close()

    def _connect(self, kind: Any, settings: dict[str, Any], within_s: float | None = None) -> Any:
        options = {name: value for name, value in self._options.items() if name in kind.DEFAULT_CONFIG}
        if within_s is not None:
            options["bootstrap_timeout_ms"] = min(options["bootstrap_timeout_ms"], int(within_s * 1000))
        connections: list[KafkaNetClient] = []
        quieten_kafka_python()

        def connect(**configs: Any) -> KafkaNetClient:
            connections.append(KafkaNetClient(**configs))
            return connections[0]

        try:
            return kind(**{**options, "kafka_client": connect, **settings})
        except KafkaError as e:
            # kafka-python leaves the thread and the sockets of a client that could not be made behind.
            for connection in connections:
                connection.close()
            raise KafkaUnavailable(
                f"No Kafka server answered at {', '.join(self.bootstrap_servers)}: {e!r}"
            ) from e
