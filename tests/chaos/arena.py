"""One scenario's broker, workers and books."""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dramatiq.message import Message
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition

from broker import DeadLetter, KafkaBroker
from broker.produce.record import Record
from dev.child import Child
from dev.stack import ROOT
from tests.chaos.outside_ledger import Entries, OutsideLedger
from tests.waiting import wait_until

#: Short, so that a killed worker's partitions move soon.
SESSION_TIMEOUT_MS = 3_000
#: How long Dramatiq waits before it makes a new consumer after an error.
RESTART_DELAY_MS = 500
START_DEADLINE_S = 40.0
#: For scenarios that kill workers again and again from outside, with whatever runs there: none of it is to be
#: taken for the culprit.
NO_POISON = {"max_crashes": 1_000}


class Worker(Child):
    """``dramatiq tests.chaos.app``."""

    def log_lines(self, containing: str) -> list[str]:
        """What it has logged so far, as far as it contains a text."""
        if not self.log.exists():
            return []
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return [line for line in text.splitlines() if containing in line]

    def wait_until_ready(self) -> None:
        """Wait until its processes have booted; they need not have found Kafka."""
        wait_until(self._is_ready, deadline_s=START_DEADLINE_S, what=f"{self.name} to be ready")

    def _is_ready(self) -> bool:
        self.check()
        return bool(self.log_lines("Worker process is ready for action."))


class Supervisor:
    """Starts a worker again whenever it ends, as systemd or Docker would."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.deaths = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.worker.start()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.worker.kill()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            if not self.worker.is_running:
                self.deaths += 1
                self.worker.kill()  # whatever it has left behind
                self.worker.start()


class Arena:
    """A namespace of its own on a Kafka, the workers on it, and what was sent.

    Parameters:
      home: A directory of the scenario's own.
      queues: The queues that workers consume.
      settings: What else the workers' KafkaBroker, and the one that sends, are given.
    """

    def __init__(
        self, bootstrap_servers: str, home: Path, *, queues: Sequence[str] = ("work",), **settings: Any
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.home = home
        self.queues = queues
        self.settings: dict[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "namespace": f"chaos-{uuid.uuid4().hex[:8]}-",
            "session_timeout_ms": SESSION_TIMEOUT_MS,
            "delay_index_dir": str(home / "delays"),
            **settings,
        }
        self.broker = KafkaBroker(**self.settings)
        for queue in queues:
            self.broker.declare_queue(queue)
        self.ledger = OutsideLedger(home / "ledger")
        self.sent: set[int] = set()
        self._cleanup = ExitStack()
        self._workers = 0

    def close(self) -> None:
        self._cleanup.close()
        self.broker.close()

    # Workers

    def worker(
        self,
        *,
        processes: int = 1,
        threads: int = 4,
        env: dict[str, str] | None = None,
        root: Path = ROOT,
        **settings: Any,
    ) -> Worker:
        """Make a worker, not started.

        Parameters:
          root: Where it finds the broker and its tasks.
          settings: What its broker is given instead of the arena's settings.
        """
        self._workers += 1
        command = [sys.executable, "-m", "dramatiq", "tests.chaos.app"]
        command += ["--processes", str(processes), "--threads", str(threads)]
        worker = Worker(
            f"worker {self._workers}",
            command,
            log=self.home / f"worker-{self._workers}.log",
            env={
                "PATH": os.environ["PATH"],
                "PYTHONUNBUFFERED": "1",
                "CHAOS_BROKER": json.dumps(self.settings | settings),
                "CHAOS_QUEUES": ",".join(self.queues),
                "CHAOS_LEDGER": str(self.ledger.path),
                "dramatiq_restart_delay": str(RESTART_DELAY_MS),
                **(env or {}),
            },
            cwd=root,
        )
        self._cleanup.callback(worker.kill)
        return worker

    def start_worker(self, **how: Any) -> Worker:
        """Start a worker and wait until its processes have booted."""
        worker = self.worker(**how)
        worker.start()
        worker.wait_until_ready()
        return worker

    def supervise(self, **how: Any) -> Supervisor:
        """Start a worker that is started again whenever it ends."""
        supervisor = Supervisor(self.worker(**how))
        self._cleanup.callback(supervisor.stop)
        supervisor.start()
        return supervisor

    # Messages

    def message(self, actor: str, number: int, *, queue: str | None = None, **kwargs: Any) -> Message[Any]:
        return Message(
            queue_name=queue or self.queues[0], actor_name=actor, args=(number,), kwargs=kwargs, options={}
        )

    def send(
        self,
        actor: str,
        numbers: Iterable[int],
        *,
        queue: str | None = None,
        partition: int | None = None,
        **kwargs: Any,
    ) -> set[int]:
        """Send a message for each number, and return once Kafka has all of them.

        Parameters:
          partition: Where they go; by default wherever the producer puts them.
        """
        numbers = set(numbers)
        assert not numbers & self.sent, "a number names one task"
        messages = [self.message(actor, number, queue=queue, **kwargs) for number in sorted(numbers)]
        if partition is None:
            self.broker.enqueue_many(messages)
        else:
            topic = self.topic(queue)
            failures = self.broker.parts.publisher.publish(
                [Record(topic, message.encode(), partition=partition) for message in messages]
            )
            assert not failures, failures
        self.sent |= numbers
        return numbers

    def topic(self, queue: str | None = None) -> str:
        return self.broker.parts.topics.queue(queue or self.queues[0])

    # What Kafka knows

    def committed(self, partition: int, queue: str | None = None) -> OffsetAndMetadata | None:
        with self._group_member(queue) as consumer:
            return consumer.committed(TopicPartition(self.topic(queue), partition), metadata=True)

    def commit(self, partition: int, offset: int, metadata: str, queue: str | None = None) -> None:
        """Commit what a foreign or older program might; the group must have no members."""
        with self._group_member(queue) as consumer:
            place = TopicPartition(self.topic(queue), partition)
            consumer.assign([place])
            consumer.commit({place: OffsetAndMetadata(offset, metadata, -1)})

    def owners(self, queue: str | None = None) -> dict[str, set[int]]:
        """Which partitions each member of a queue's group says it has, by its client's id and host."""
        group = self.broker.parts.group_of(queue or self.queues[0])
        with self.admin() as admin:
            description = admin.describe_groups([group])[group]
        return {
            member["member_id"]: {
                partition
                for topic in (member["member_assignment"] or {}).get("assigned_partitions", ())
                for partition in topic["partitions"]
            }
            for member in description["members"]
        }

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            yield admin
        finally:
            admin.close()

    @contextmanager
    def _group_member(self, queue: str | None) -> Iterator[KafkaConsumer]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            group_id=self.broker.parts.group_of(queue or self.queues[0]),
            enable_auto_commit=False,
        )
        try:
            yield consumer
        finally:
            consumer.close(autocommit=False)

    # The books

    def wait_until_started(self, numbers: Iterable[int], *, deadline_s: float = START_DEADLINE_S) -> None:
        numbers = set(numbers)
        wait_until(
            lambda: numbers <= self.ledger.read().started.keys(),
            deadline_s=deadline_s,
            what=f"{len(numbers)} tasks to start",
        )

    def wait_until_started_any(self, count: int, *, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until so many tasks have started, whichever they are."""
        wait_until(
            lambda: len(self.ledger.read().started) >= count,
            deadline_s=deadline_s,
            what=f"any {count} tasks to start",
        )

    def wait_until_done(self, numbers: Iterable[int], *, deadline_s: float = START_DEADLINE_S) -> None:
        numbers = set(numbers)
        wait_until(
            lambda: numbers <= self.ledger.read().done.keys(),
            deadline_s=deadline_s,
            what=f"{len(numbers)} tasks to be done",
        )

    def wait_until_left(self, count: int, *, deadline_s: float = 60.0) -> None:
        """Wait until so many messages are not complete, and Kafka knows it."""
        wait_until(
            lambda: self.waiting() == count, deadline_s=deadline_s, what=f"{count} messages to be left"
        )

    def waiting(self) -> int:
        """How many messages are not complete."""
        return sum(self.broker.count(queue) for queue in self.queues)

    def dead_letters(self) -> dict[int, DeadLetter]:
        """The dead letters by their task's number."""
        dead_letters = (
            dead_letter for queue in self.queues for dead_letter in self.broker.dead_letters(queue)
        )
        return {
            dead_letter.message.args[0]: dead_letter
            for dead_letter in dead_letters
            if dead_letter.message is not None
        }

    def balance(
        self,
        scenario: str,
        *,
        repeats_at_most: int,
        deadline_s: float = 60.0,
        bad_luck: bool = False,
    ) -> Entries:
        """Wait until nothing waits, check that every message sent is done or dead, and print the books.

        Parameters:
          bad_luck: Whether a task that is done may be dead as well: one whose workers were killed from
            outside three times while it ran alone looks like their killer.
        """
        self.wait_until_left(0, deadline_s=deadline_s)
        entries, dead = self.ledger.read(), self.dead_letters()
        done = entries.done.keys() & self.sent
        lost = self.sent - done - dead.keys()
        print(
            f"\n{scenario}: sent {len(self.sent)} = done {len(done)} + dead {len(dead)} + waiting 0; "
            f"executions {sum(entries.started.values())}, beyond the first {entries.repeats} "
            f"(at most {repeats_at_most})"
        )
        assert not lost, f"lost: {sorted(lost)[:20]}"
        both = {number: dead[number].error_type for number in sorted(done & dead.keys())}
        assert not {n for n, error in both.items() if not (bad_luck and error == "PoisonMessage")}, both
        assert entries.repeats <= repeats_at_most
        return entries
