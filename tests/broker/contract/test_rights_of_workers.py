"""A worker without one of its planned rights: what it says, what it still does, and that nothing is lost."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq import Message

from broker import ClientKind, KafkaBroker, PlannedRight
from broker.kafka.rights import name_for_tool
from tests.broker.contract.conftest import StartWorker
from tests.broker.contract.test_planned_rights import Planned, make_client
from tests.broker.contract.test_rights import MakeBroker, kafka, make_broker, users
from tests.broker.dead_letters.samples import QUEUE
from tests.waiting import wait_until

__all__ = ["kafka", "make_broker", "make_client", "users"]

pytestmark = [
    pytest.mark.real_kafka(reason="tell its clients apart"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

DEADLINE_S = 90
#: Twice as many deliveries are read ahead: more than are held without a right.
WORKER_THREADS = 8
#: The kinds of tasks: "fails" and "waits" need a retry each, and those of "waits" have one ordered key.
KINDS = ("plain", "delayed", "fails", "dies", "waits")
#: What a worker still runs without each of its rights, to the end; and the others are held.
RUNS_WITHOUT = {
    "READ topic queue": (),
    "READ topic delayed": ("plain", "dies", "waits"),
    "READ topic lanes": ("plain", "delayed", "fails", "dies"),
    "READ topic control": KINDS,
    "READ topic workers": KINDS,
    "WRITE topic queue": ("plain", "dies"),
    "WRITE topic delayed": ("plain", "dies", "waits"),
    "WRITE topic lanes": ("plain", "delayed", "fails", "dies"),
    "WRITE topic dead letters": ("plain", "delayed", "fails", "waits"),
    "WRITE topic workers": KINDS,
    "WRITE topic history": KINDS,
    "READ group queue": (),
    "DESCRIBE group flushed": KINDS,
    "READ group forwarders": ("plain", "dies", "waits"),
}


def name_of(right: PlannedRight, namespace: str) -> str:
    """A right without its namespace, as a key of RUNS_WITHOUT."""
    name = right.name.removeprefix("dramatiq.").removeprefix(namespace).removeprefix("dramatiq_")
    short = {QUEUE: "queue", f"{QUEUE}_lanes": "lanes", f"{QUEUE}_dlq": "dead letters"}
    short |= {f"{QUEUE}.flushed": "flushed", "delayed.forwarders": "forwarders"}
    return f"{right.operation} {right.kind} {short.get(name, name)}"


def rights_of_worker(client: Planned) -> dict[str, PlannedRight]:
    return {name_of(right, client.namespace): right for right in client.planned(ClientKind.WORKER)}


def test_every_planned_right_of_a_worker_is_tried(make_client: Callable[[], Planned]) -> None:
    assert rights_of_worker(make_client()).keys() == RUNS_WITHOUT.keys()


def message(kind: str, number: int = 0, **options: Any) -> Message[Any]:
    return Message(QUEUE, "task", (kind, number), {}, options)


class Station:
    """A worker's broker, and the runs of its tasks, by kind."""

    def __init__(self, owner: KafkaBroker, broker: Any) -> None:
        self.owner = owner
        self.broker = broker
        self.runs: Counter[str] = Counter()
        failed: set[tuple[str, int]] = set()
        self._begun, self._release = threading.Event(), threading.Event()

        @dramatiq.actor(
            broker=broker, actor_name="task", queue_name=QUEUE, max_retries=1, min_backoff=10, max_backoff=10,
            key_order="ordered",
        )  # fmt: skip
        def task(kind: str, number: int) -> None:
            if kind == "blocks":
                self._begun.set()
                self._release.wait(DEADLINE_S)
                return
            if kind == "dies":
                self.runs[kind] += 1
                raise ValueError(kind)
            if kind in ("fails", "waits") and (kind, number) not in failed:
                failed.add((kind, number))
                raise ConnectionError(kind)
            self.runs[kind] += 1

    def send(self, first: int) -> None:
        """Send two tasks of each kind."""
        for number in range(first, first + 2):
            self.owner.enqueue(message("plain", number))
            self.owner.enqueue(message("delayed", number), delay=100)
            self.owner.enqueue(message("fails", number))
            self.owner.enqueue(message("dies", number))
            self.owner.enqueue(message("waits", number, partition_key="a"))

    def flush_while_one_runs(self) -> None:
        """Let the worker notice a flush while it holds a record."""
        self.owner.enqueue(message("blocks"))
        assert self._begun.wait(DEADLINE_S)
        self.owner.flush(QUEUE)  # it waits until workers have noticed, for a while
        self._release.set()

    def has_run(self, kinds: tuple[str, ...], count: int) -> bool:
        runs = self.runs
        return all(
            runs[kind] >= count * (2 if kind == "dies" and "delayed" in kinds else 1) for kind in kinds
        )


@pytest.fixture
def station(make_client: Callable[[], Planned], make_broker: MakeBroker) -> Callable[..., Any]:
    def make(lacking: str) -> tuple[Planned, PlannedRight, Station]:
        client = make_client()
        missing = rights_of_worker(client)[lacking]
        client.grant_planned(ClientKind.WORKER, but=missing)
        return client, missing, Station(client.owner, make_broker(client))

    return make


def about(caplog: pytest.LogCaptureFixture, right: PlannedRight) -> list[str]:
    """The log lines about a resource."""
    resource = re.compile(re.escape(f"'{right.name}'"))
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING
        and record.name.startswith("broker")
        and resource.search(record.getMessage())
        and "cannot be read, so nobody has checked" not in record.getMessage()
    ]


@pytest.mark.parametrize("lacking", RUNS_WITHOUT)
def test_a_worker_without_a_right_names_it_once_runs_what_needs_none_and_loses_nothing(
    station: Callable[..., Any], start_worker: StartWorker, caplog: pytest.LogCaptureFixture, lacking: str
) -> None:
    # Given a worker without one right
    client, missing, work = station(lacking)
    start_worker(work.broker, worker_threads=WORKER_THREADS)
    if lacking == "DESCRIBE group flushed":
        work.flush_while_one_runs()
    work.send(0)

    # Then it names the right with the command that grants it, and runs what needs none
    said = f"It takes the right {missing.operation} on the {missing.kind} '{missing.name}'"
    command = f"--operation {name_for_tool(missing.operation)} --{missing.kind} {missing.name}"
    wait_until(
        lambda: any(said in line and command in line for line in about(caplog, missing)),
        deadline_s=DEADLINE_S,
        what="the worker to say what it lacks",
    )
    kinds = RUNS_WITHOUT[lacking]
    wait_until(lambda: work.has_run(kinds, 2), deadline_s=DEADLINE_S, what=f"{kinds} to run")
    work.send(10)
    wait_until(lambda: work.has_run(kinds, 4), deadline_s=DEADLINE_S, what=f"{kinds} to run again")
    lines = about(caplog, missing)
    assert all(said in line and command in line for line in lines), lines
    assert len(set(lines)) == len(lines) <= 2, lines
    assert not [r for r in caplog.records if r.exc_info and r.name.startswith("broker")]

    # And everything runs once the right is granted: no retry is lost, and none is a dead letter
    client.grant((missing.operation, missing.kind, missing.name))
    work.owner.join(QUEUE, timeout=DEADLINE_S * 1000)
    assert work.runs == {"plain": 4, "delayed": 4, "fails": 4, "dies": 8, "waits": 4}
    assert Counter(letter.error for letter in work.owner.dead_letters(QUEUE)) == {"dies": 4}
