"""Makes kafka-python clients. Nothing connects until one of these methods is called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from dramatiq.errors import BrokerConnectionError

from ..errors import KafkaUnavailable, NotAuthorized
from ..process import clock, forks
from ..process.backoff import Backoff
from .admin_client import Admin
from .connections import Connection
from .consumer_client import Consumer
from .errors import KafkaError, may_pass
from .log_filter import limit_kafka_python_logs
from .producer_client import Producer
from .protocol import AdminClient, ConsumerClient, ProducerClient
from .refused_connections import ADVICE, LastFailure, refusal_text
from .rights import Right, Rights, translated, with_all
from .unreadable_batches import check_compression_type

T = TypeVar("T")

#: How long a client may take to find the cluster before it says that Kafka is away.
BOOTSTRAP_TIMEOUT_MS = 10_000
#: How long a question may take that nobody has set a time for. Kafka notices the death of a node after its
#: broker.session.timeout.ms, 9 s by default, and what that node led or coordinated moves then.
ASK_TIMEOUT_S = 30.0
#: One node is given this share of what is left, within these bounds, before another one is asked.
TRY_SHARE = 1 / 3
MIN_TRY_MS = 3_000
MAX_TRY_MS = 10_000
#: What a client is given to find the cluster when there is hardly any time left.
MIN_FIND_MS = 100
#: The pause before another node is asked: at random up to the first, which doubles up to the second.
PAUSE_S = 0.1
MAX_PAUSE_S = 1.0
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
      ValueError: When an option is unknown, or is one that the broker's guarantees depend on, or names a
        compression that needs a package which is not installed.
    """

    def __init__(self, bootstrap_servers: str | list[str], options: Mapping[str, Any] | None = None) -> None:
        options = dict(options or {})
        if reserved := RESERVED_OPTIONS.intersection(options):
            raise ValueError(
                f"client_options may not set {sorted(reserved)}: the broker's guarantees rest on them"
            )
        if unknown := options.keys() - default_options().keys():
            raise ValueError(f"client_options {sorted(unknown)} are not settings of any kafka-python client")
        check_compression_type(options.get("compression_type"))
        servers = (
            bootstrap_servers.split(",") if isinstance(bootstrap_servers, str) else list(bootstrap_servers)
        )
        self.bootstrap_servers = [server.strip() for server in servers]
        #: The server that answered last: the first to be asked the next time.
        self._answered: str | None = None
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

    def ask(
        self,
        question: Callable[[], T],
        doing: str,
        *,
        deadline_s: float | None = None,
        patient: bool = True,
        unless: threading.Event | None = None,
        rights: Rights | None = None,
    ) -> T:
        """Ask until a node has the answer.

        kafka-python asks one node once. That may be the dead one of three, or one that does not know yet who
        has taken its place.

        Parameters:
          question: Asks, with clients that it makes here, and can be asked again from its beginning.
          doing: What that is, for an error's text: ``"The topic 'x' could not be read"``.
          deadline_s: Until when (of ``clock.monotonic_s()``); by default ASK_TIMEOUT_S from now. A question
            within a question has the outer one's time.
          patient: Whether the cluster may take as long to be found, where there is a deadline. Otherwise it
            is taken to be away after ``bootstrap_timeout_ms``.
          unless: Nothing is asked again once it is set.
          rights: What the question needs, for the error when that is missing.

        Raises:
          KafkaUnavailable: When no node had the answer in time.
          NotAuthorized: When this client may not ask.
        """
        outer = _asking.get()
        asking = _Asking(
            deadline_s or (outer.until_s if outer else clock.monotonic_s() + ASK_TIMEOUT_S),
            patient=(patient and deadline_s is not None) or (outer is not None and outer.patient),
        )

        backoff = Backoff(PAUSE_S, MAX_PAUSE_S, jitter=True)
        while True:
            token = _asking.set(asking)
            try:
                return question()
            except KafkaError as e:
                pause_s = backoff.fail()
                is_over = clock.monotonic_s() + pause_s >= asking.until_s
                if not may_pass(e) or is_over or (unless is not None and unless.is_set()):
                    raise self.translated(e, doing, rights) from e
            finally:
                _asking.reset(token)
            clock.sleep(pause_s) if unless is None else clock.wait(unless, pause_s)

    @property
    def asking_until_s(self) -> float | None:
        """Until when the question that this thread asks is asked; None when it asks none."""
        asking = _asking.get()
        return None if asking is None else asking.until_s

    def translated(
        self, error: KafkaError, doing: str, rights: Rights | None = None
    ) -> BrokerConnectionError:
        """What kafka-python says, in this broker's terms; see ``rights``."""
        return translated(error, doing, rights, self._options)

    @contextmanager
    def naming_all(self, doing: str, needs: Iterable[Right]) -> Iterator[None]:
        """Let an error about one right that is missing name all ``needs`` of what it is raised in."""
        try:
            yield
        except NotAuthorized as e:
            raise with_all(e, doing, needs, self._options) from e

    def producer(self, *, within_s: float | None = None, **settings: Any) -> ProducerClient:
        producer: ProducerClient = self._connect(Producer, settings, within_s)
        return producer

    def consumer(self, **settings: Any) -> ConsumerClient:
        consumer: ConsumerClient = self._connect(
            Consumer, {"enable_auto_commit": False, "allow_auto_create_topics": False, **settings}
        )
        return consumer

    @contextmanager
    def admin(self, *, within_s: float | None = None, **settings: Any) -> Iterator[AdminClient]:
        admin: AdminClient = self._connect(Admin, settings, within_s)
        try:
            yield admin
        finally:
            admin.close()

    def _connect(self, kind: Any, settings: dict[str, Any], within_s: float | None = None) -> Any:
        forks.check_for_fork()
        options = {name: value for name, value in self._options.items() if name in kind.DEFAULT_CONFIG}
        options |= {**settings, **self._timeouts(kind, settings, within_s)}
        connections: list[Connection] = []
        limit_kafka_python_logs()

        def connect(**configs: Any) -> Connection:
            connections.append(Connection(first=self._answered, **configs))
            return connections[0]

        try:
            client = kind(**{**options, "kafka_client": connect})
        except KafkaError as e:
            # kafka-python leaves the thread and the sockets of a client that could not be made behind.
            for connection in connections:
                connection.close()
            raise self._unreachable(e, connections) from e
        except RuntimeError as e:
            if "new thread" not in str(e):
                raise
            raise KafkaUnavailable(
                f"Kafka cannot be reached any more, as Python ends this process and starts no thread: {e}. "
                "What is connected before that can be used until the end."
            ) from e
        self._answered = connections[0].asked
        return client

    def _unreachable(self, error: KafkaError, connections: list[Connection]) -> KafkaUnavailable:
        servers = ", ".join(self.bootstrap_servers)
        failure = connections[0].failure if connections else LastFailure()
        if failure.error is None:
            return KafkaUnavailable(f"No Kafka server answered at {servers}: {error!r}")
        reason = refusal_text(failure.error, self._options)
        if not failure.is_refusal:
            return KafkaUnavailable(f"No Kafka server answered at {servers}: {reason}: {error!r}")
        refused = KafkaUnavailable(f"Kafka at {servers} does not let this client in: {reason}")
        refused.advice = ADVICE
        return refused

    def _timeouts(self, kind: Any, settings: Mapping[str, Any], within_s: float | None) -> dict[str, Any]:
        """How long the client may take to find the cluster, and one node for an answer."""
        find_ms = settings.get("bootstrap_timeout_ms", self._options["bootstrap_timeout_ms"])
        if (asking := _asking.get()) is None:
            return {"bootstrap_timeout_ms": find_ms if within_s is None else int(within_s * 1000)}
        left_ms = max(MIN_FIND_MS, int((asking.until_s - clock.monotonic_s()) * 1000))
        answer_ms = settings.get(
            "request_timeout_ms",
            self._options.get("request_timeout_ms", kind.DEFAULT_CONFIG["request_timeout_ms"]),
        )
        return {
            "bootstrap_timeout_ms": left_ms if asking.patient else min(find_ms, left_ms),
            "request_timeout_ms": min(answer_ms, MAX_TRY_MS, max(MIN_TRY_MS, int(left_ms * TRY_SHARE))),
        }


@dataclass(frozen=True, slots=True)
class _Asking:
    """A question that is being asked.

    Attributes:
      until_s: Until when.
      patient: Whether finding the cluster may take as long.
    """

    until_s: float
    patient: bool


#: The question that the clients which are made here and now are for.
_asking: ContextVar[_Asking | None] = ContextVar("asking", default=None)


def default_options() -> dict[str, Any]:
    """The names of all settings of kafka-python's clients, and their defaults."""
    defaults: dict[str, Any] = {}
    for kind in (Producer, Consumer, Admin):
        defaults.update(kind.DEFAULT_CONFIG)
    return defaults
