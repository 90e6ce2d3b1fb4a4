"""The compared systems: this broker and its peers, with their guarantees about a message."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True, slots=True)
class System:
    """One broker with one library.

    Attributes:
      key: Its name on the command line and in the JSON.
      title: Its name for people.
      module: Defines its tasks; workers and senders import it, the bench itself does not.
      server: The server it needs, by the name in `servers.py`; empty for none.
      durability: The guarantee after a send, and the time at which a message counts as done.
      commands: The commands of its workers, for a number of processes and of threads.
      needs: The Python distributions that its module imports, besides this broker's own.
      read_ahead: The maximum number of these tasks that its workers hold before they run them.
      library: The module of its library's command line, whose import is the start of the interpreter.
    """

    key: str
    title: str
    module: str
    server: str
    durability: str
    commands: Callable[[str, int, int], list[list[str]]]
    needs: tuple[str, ...] = ()
    read_ahead: int = 0
    library: str = "dramatiq.cli"

    def missing(self) -> str:
        """Its distributions that are not installed, with the remedy; empty when there are none."""
        missing = [name for name in self.needs if not _is_installed(name)]
        return f"{', '.join(missing)} not installed: pip install -r requirements-bench.txt" if missing else ""

    def workers(self, processes: int, threads: int) -> list[list[str]]:
        return self.commands(self.module, processes, threads)


#: Tasks that Celery reads ahead for each thread: 64 instead of 4, as its guide advises for short ones.
CELERY_PREFETCH = 64


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _dramatiq(module: str, processes: int, threads: int) -> list[list[str]]:
    return [_python("dramatiq", module, "--processes", str(processes), "--threads", str(threads))]


def _celery(module: str, processes: int, threads: int) -> list[list[str]]:
    # Only warnings: Celery would write two lines a task, the others write none. Fewer helpers, too.
    quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    multiplier = ["--prefetch-multiplier", str(CELERY_PREFETCH)]
    pool = ["--pool", "threads", "--concurrency", str(threads), *multiplier]
    return [
        _python("celery", "--app", module, "worker", *pool, *quiet, "--hostname", f"bench{number}@%h")
        for number in range(processes)
    ]


def _taskiq(module: str, processes: int, threads: int) -> list[list[str]]:
    pool = ["--workers", str(processes), "--max-threadpool-threads", str(threads)]
    return [_python("taskiq", "worker", f"{module}:broker", *pool, "--log-level", "WARNING")]


def _program(module: str, processes: int, threads: int) -> list[list[str]]:
    return [_python(module, str(threads)) for _ in range(processes)]


def _loops(module: str, processes: int, threads: int) -> list[list[str]]:
    return [_python(module, str(number), str(processes)) for number in range(processes)]


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


_ACKED_LATE = "done when the task has run"

OURS = System(
    "kafka",
    "this broker, Kafka",
    "bench.apps.dramatiq_kafka",
    "kafka",
    "acks=all, idempotent; in the log (page cache) before enqueue returns; "
    f"{_ACKED_LATE} and what follows is in Kafka",
    _dramatiq,
    # Two fetches (one parsed, one that has arrived) of 256 KiB from each of 4 partitions, 170 bytes a record.
    read_ahead=12_500,
)
SYSTEMS = [
    OURS,
    replace(
        OURS,
        key="kafka-3000",
        title="this broker, Kafka with group.initial.rebalance.delay.ms=3000",
        server="kafka-3000",
    ),
    System(
        "dramatiq-rabbitmq",
        "Dramatiq, RabbitMQ (confirms)",
        "bench.apps.dramatiq_rabbitmq",
        "rabbitmq",
        f"durable queue, persistent messages, publisher confirms; {_ACKED_LATE}",
        _dramatiq,
        needs=("pika",),
    ),
    System(
        "dramatiq-rabbitmq-unconfirmed",
        "Dramatiq, RabbitMQ (no confirms)",
        "bench.apps.dramatiq_rabbitmq_unconfirmed",
        "rabbitmq",
        f"durable queue, persistent messages; sending promises nothing; {_ACKED_LATE}",
        _dramatiq,
        needs=("pika",),
    ),
    System(
        "dramatiq-redis",
        "Dramatiq, Redis",
        "bench.apps.dramatiq_redis",
        "redis",
        f"append-only file written before the answer, to the disk every second; {_ACKED_LATE}",
        _dramatiq,
        needs=("redis",),
    ),
    System(
        "celery-rabbitmq",
        "Celery, RabbitMQ (acks late)",
        "bench.apps.celery_rabbitmq",
        "rabbitmq",
        f"durable queue, persistent messages; sending promises nothing; {_ACKED_LATE}",
        _celery,
        read_ahead=2 * 8 * CELERY_PREFETCH,
        needs=("celery",),
        library="celery.bin.worker",
    ),
    System(
        "celery-redis",
        "Celery, Redis (acks late)",
        "bench.apps.celery_redis",
        "redis",
        f"append-only file as above; {_ACKED_LATE}",
        _celery,
        read_ahead=2 * 8 * CELERY_PREFETCH,
        needs=("celery", "redis"),
        library="celery.bin.worker",
    ),
    System(
        "taskiq-kafka",
        "taskiq, Kafka (taskiq-aio-kafka)",
        "bench.apps.taskiq_kafka",
        "kafka",
        "acks=all, idempotent; offsets committed on a timer, run or not: a crash loses tasks",
        _taskiq,
        # One fetch of 1 MiB from each of 4 partitions, 290 bytes a record.
        read_ahead=14_500,
        needs=("taskiq-aio-kafka",),
    ),
    System(
        "stub",
        "StubBroker, in process (the ceiling)",
        "bench.apps.dramatiq_stub",
        "",
        "none: memory of one process",
        _program,
    ),
]
#: The yardsticks of single rows: programs without a broker, with which a broker is compared.
YARDSTICKS = [
    System("bare-threads", "bare threads", "bench.apps.bare_threads", "", "none", _program),
    System(
        "bare-client",
        "bare kafka-python producer and consumer",
        "bench.apps.bare_client",
        "kafka",
        "acks=all, idempotent; nothing is committed",
        _program,
    ),
    System(
        "plain-loop",
        "plain kafka-python loop",
        "bench.apps.plain_loop",
        "kafka",
        "none: offsets committed on a timer",
        _loops,
    ),
]
BY_KEY = {system.key: system for system in (*SYSTEMS, *YARDSTICKS)}
