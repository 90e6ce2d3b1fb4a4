"""Constructs kafka-python's clients. No connection is made until one of these methods is called."""

from __future__ import annotations

# Python imports this codec at the first look-up of a host. A fork during an import by another thread leaves
# the module's lock locked in the child, which would never connect.
import encodings.idna  # noqa: F401
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
from .rights import Right, Rights, refusal, translated, with_all
from .unreadable_batches import check_compression_type

T = TypeVar("T")

#: The time for a client to find the cluster before Kafka counts as unreachable.
BOOTSTRAP_TIMEOUT_MS = 10_000
#: The time for a request without a deadline of its own. Kafka notices the death of a node after its
#: broker.session.timeout.ms, 9 s by default, and then moves the partitions and groups of that node.
ASK_TIMEOUT_S = 30.0
#: The share of the remaining time that one node has, within these bounds, before another node is asked.
TRY_SHARE = 1 / 3
MIN_TRY_MS = 3_000
MAX_TRY_MS = 10_000
#: The least time for a client to find the cluster.
MIN_FIND_MS = 100
#: The first and the longest pause before another node is asked; each is random below its length.
PAUSE_S = 0.1
MAX_PAUSE_S = 1.0
#: With kafka-python's default of 30 s, a worker would stay idle long after Kafka is reachable again.
RECONNECT_BACKOFF_MAX_MS = 1_000
#: The greatest age of a client's metadata. Added partitions are read and written after this time; with
#: kafka-python's default of five minutes, messages in them would wait that long.
METADATA_MAX_AGE_MS = 5_000
#: Options that the broker's guarantees depend on: another value would break one of them silently.
RESERVED_OPTIONS = frozenset(
    {
        "bootstrap_servers", "group_id", "enable_auto_commit", "auto_offset_reset", "acks",
        "enable_idempotence", "partition_assignment_strategy", "delivery_timeout_ms", "isolation_level",
        "allow_auto_create_topics", "key_serializer", "value_serializer", "key_deserializer",
        "value_deserializer", "transactional_id",
    }
)  # fmt: skip


class Clients:
    """Constructs clients of the cluster.

    Each method returns a client that has found the cluster, and raises KafkaUnavailable when that takes
    longer than the option ``bootstrap_timeout_ms``, or than ``within_s``.

    Parameters:
      bootstrap_servers: ``host:port``, several separated by commas, or a list of them.
      options: Further settings of every kafka-python client: ``security_protocol``, ``sasl_*``, ``ssl_*``,
        ``client_id``...

    Raises:
      ValueError: When an option is unknown, or the broker's guarantees depend on it, or it names a
        compression whose package is not installed.
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
        #: The options as they were given, for a process that constructs clients of the same cluster.
        self.given_options = options
        #: The server that answered last. The next client asks it first.
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
        """Whether a record may be smaller in a request than its fields are."""
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
        """Repeat a request until a node has the answer.

        kafka-python asks one node once. That may be the dead one of three, or one that does not know its
        successor yet.

        Parameters:
          question: Makes the request with clients that it constructs here. It can be called repeatedly.
          doing: What failed otherwise, for the error's text: ``"The topic 'x' could not be read"``.
          deadline_s: Of ``clock.monotonic_s()``; by default ASK_TIMEOUT_S from now. A question within a
            question has the deadline of the outer one.
          patient: Whether Kafka counts as unreachable only after ``deadline_s``, if that is given, instead of
            after ``bootstrap_timeout_ms``.
          unless: The request is not repeated once it is set.
          rights: The rights that the request needs, for the error when one is missing.

        Raises:
          KafkaUnavailable: When no node had the answer in time.
          NotAuthorized: When this client lacks a right.
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
        """The deadline of the question that this thread asks; None outside of :meth:`ask`."""
        asking = _asking.get()
        return None if asking is None else asking.until_s

    def translated(
        self, error: KafkaError, doing: str, rights: Rights | None = None
    ) -> BrokerConnectionError:
        """An error of a client as an error of this broker; see ``rights``."""
        return translated(error, doing, rights, self._options)

    def refusal(self, doing: str, *needs: Right) -> NotAuthorized:
        """The error about missing rights; see ``rights``."""
        return refusal(doing, needs, self._options)

    @contextmanager
    def naming_all(self, doing: str, needs: Iterable[Right]) -> Iterator[None]:
        """Let an error about one missing right name all rights that the block needs."""
        try:
            yield
        except NotAuthorized as e:
            raise with_all(e, doing, needs, self._options) from e

    def producer(self, *, within_s: float | None = None, **settings: Any) -> ProducerClient:
        producer: ProducerClient = self._connect(Producer, settings, within_s)
        return producer

    def consumer(self, *, topics: Iterable[str] = (), **settings: Any) -> ConsumerClient:
        """Construct a consumer.

        Parameters:
          topics: The topics that it will read: their metadata comes with that of the cluster.
        """
        consumer: ConsumerClient = self._connect(
            Consumer,
            {
                "enable_auto_commit": False,
                "allow_auto_create_topics": False,
                # The name of a static member, which kafka-python refuses for a consumer without a group.
                **({} if "group_id" in settings else {"group_instance_id": None}),
                **settings,
            },
            topics=topics,
        )
        return consumer

    @contextmanager
    def admin(self, *, within_s: float | None = None, **settings: Any) -> Iterator[AdminClient]:
        admin: AdminClient = self._connect(Admin, settings, within_s)
        try:
            yield admin
        finally:
            admin.close()

    def _connect(
        self,
        kind: Any,
        settings: dict[str, Any],
        within_s: float | None = None,
        *,
        topics: Iterable[str] = (),
    ) -> Any:
        forks.check_for_fork()
        options = {name: value for name, value in self._options.items() if name in kind.DEFAULT_CONFIG}
        options |= {**settings, **self._timeouts(kind, settings, within_s)}
        connections: list[Connection] = []
        limit_kafka_python_logs()

        def connect(**configs: Any) -> Connection:
            connections.append(Connection(first=self._answered, topics=topics, **configs))
            return connections[0]

        try:
            client = kind(**{**options, "kafka_client": connect})
        except KafkaError as e:
            # kafka-python leaves the thread and the sockets of a client behind whose constructor failed.
            for connection in connections:
                connection.close()
            raise self._unreachable(e, connections) from e
        except RuntimeError as e:
            if "new thread" not in str(e):
                raise
            raise KafkaUnavailable(
                f"Kafka cannot be reached any more, as Python ends this process and starts no thread: {e}. "
                "Clients that connected before can be used until the end."
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
        """The timeouts of a client: to find the cluster, and for the answer of one node."""
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
    """The deadline of a question.

    Attributes:
      until_s: Of ``clock.monotonic_s()``.
      patient: Whether Kafka counts as unreachable only then.
    """

    until_s: float
    patient: bool


#: The question for which this thread, or task, constructs clients.
_asking: ContextVar[_Asking | None] = ContextVar("asking", default=None)


def default_options() -> dict[str, Any]:
    """The settings of kafka-python's clients with their defaults, by name."""
    defaults: dict[str, Any] = {}
    for kind in (Producer, Consumer, Admin):
        defaults.update(kind.DEFAULT_CONFIG)
    return defaults
