"""What the workers of the chaos tests run: ``dramatiq tests.chaos.app``.

Each task writes into the outside ledger when it starts and when it is done (see ``outside_ledger``). A
message may be put into any of the queues, whichever actor it names.
"""

import ctypes
import json
import logging
import os
import re
import signal
import ssl
import threading
import time
from pathlib import Path

import dramatiq
from dramatiq.middleware import CurrentMessage

from broker import KafkaBroker, default_middleware
from tests.chaos.outside_ledger import LedgerWriter

GATE_POLL_S = 0.02

logging.getLogger("kafka").setLevel(logging.WARNING)
settings = json.loads(os.environ["CHAOS_BROKER"])
if os.environ.get("CHAOS_SSL_CONTEXT"):  # which an unencrypted connection does not use
    settings["client_options"] = {"ssl_context": ssl.create_default_context()}
ledger = LedgerWriter(Path(os.environ["CHAOS_LEDGER"]))

broker = KafkaBroker(**settings, middleware=[*default_middleware(), CurrentMessage()])
dramatiq.set_broker(broker)
for queue in os.environ["CHAOS_QUEUES"].split(","):
    broker.declare_queue(queue)
default_queue = next(iter(broker.queues))


@dramatiq.actor(queue_name=default_queue, max_retries=0)
def work(number: int, seconds: float = 0.0, padding: str = "") -> None:
    """A task that takes a while."""
    ledger.write("start", number)
    time.sleep(seconds)
    ledger.write("done", number)


@dramatiq.actor(queue_name=default_queue, max_retries=0, priority=100)
def patient(number: int, seconds: float = 0.0) -> None:
    """A task that every other one goes before."""
    ledger.write("start", number)
    time.sleep(seconds)
    ledger.write("done", number)


@dramatiq.actor(queue_name=default_queue, max_retries=0, time_limit=float("inf"))
def gated(number: int, gate: str) -> None:
    """A task that is stuck until the file ``gate`` exists."""
    ledger.write("start", number)
    while not Path(gate).exists():
        time.sleep(GATE_POLL_S)
    ledger.write("done", number)


@dramatiq.actor(queue_name=default_queue, max_retries=0)
def kill_worker(number: int, seconds: float = 0.0) -> None:
    """A task that kills its process: at once, or after a while."""
    if seconds:
        ledger.write("start", number)
        time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


@dramatiq.actor(queue_name=default_queue, max_retries=0)
def hold_python(number: int, seconds: int) -> None:
    """A task that lets no other thread of its process run, as a C extension may that keeps Python's lock."""
    ledger.write("start", number)
    ctypes.PyDLL(None).sleep(seconds)
    ledger.write("done", number)


def search_for_ever(number: int) -> None:
    """A task whose regular expression takes longer than a life, and holds Python's lock meanwhile."""
    ledger.write("start", number)
    re.match(r"(a+)+$", "a" * 64 + "b")


if "hard_time_limit" in broker.actor_options:  # not on the earlier version of test_earlier_version.py
    dramatiq.actor(queue_name=default_queue, max_retries=0, hard_time_limit=1_500)(search_for_ever)


@dramatiq.actor(queue_name=default_queue, max_retries=0)
def fail(number: int) -> None:
    """A task that fails, and for good."""
    ledger.write("start", number)
    raise ValueError(f"{number} fails")


@dramatiq.actor(queue_name=default_queue, max_retries=10, min_backoff=200, max_backoff=400)
def flaky(number: int, failures: int) -> None:
    """A task that fails a few times before it works."""
    ledger.write("start", number)
    message = CurrentMessage.get_current_message()
    assert message is not None
    if message.options.get("retries", 0) < failures:
        raise ConnectionError(f"{number} fails for now")
    ledger.write("done", number)


@dramatiq.actor(
    queue_name=default_queue, max_retries=10, min_backoff=300, max_backoff=600, key_order="ordered"
)
def in_order(number: int) -> None:
    """A task that its key's later ones wait for. Every fifth fails twice, with a retry between."""
    fail_twice(number)


@dramatiq.actor(queue_name=default_queue, max_retries=10, min_backoff=300, max_backoff=600)
def passed_by(number: int) -> None:
    """The same, and its key's later ones go on while its retry waits."""
    fail_twice(number)


def fail_twice(number: int) -> None:
    ledger.write("start", number)
    message = CurrentMessage.get_current_message()
    assert message is not None
    time.sleep(0.02)
    if number % 5 == 0 and message.options.get("retries", 0) < 2:
        ledger.write("failed", number)
        raise ConnectionError(f"{number} fails for now")
    ledger.write("done", number)


@dramatiq.actor(queue_name=default_queue, max_retries=0)
def starve_once(number: int, seconds: float, marker: str) -> None:
    """A task that keeps its worker's consumer threads from polling, as one that hogs the processor would."""
    ledger.write("start", number)
    if not Path(marker).exists():
        Path(marker).touch()
        with broker.parts.in_flight.lock:
            time.sleep(seconds)
    ledger.write("done", number)


def report_memory() -> None:
    """Write this process's resident memory into the ledger, for as long as it lives."""
    while True:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        ledger.write("memory", pages * os.sysconf("SC_PAGE_SIZE"))
        time.sleep(0.2)


if os.environ.get("CHAOS_REPORT_MEMORY"):
    threading.Thread(target=report_memory, daemon=True).start()


@dramatiq.actor(queue_name=default_queue, max_retries=0)
def timed(number: int, seconds: float) -> None:
    """A task that notes when it begins and ends, in a file beside the ledger."""
    times = Path(os.environ["CHAOS_LEDGER"]).with_name("times")

    def note(event: str) -> None:
        with times.open("ab", buffering=0) as file:
            file.write(json.dumps([event, number, os.getpid(), time.time()]).encode() + b"\n")

    ledger.write("start", number)
    note("start")
    time.sleep(seconds)
    note("end")
    ledger.write("done", number)


def stop_at(step: str, signal_number: int, marker: Path) -> None:
    """Send this process a signal when it reaches a step of a unique message, once in all workers.

    ``mark-before`` and ``mark-after``: the write of its mark; ``running``: its run; ``complete``: it is
    complete, and not committed.
    """
    parts = broker.parts
    is_unique = re.compile(rb":unique$")

    def reach(reached: str) -> None:
        if reached == step and not marker.exists():
            marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal_number)

    publish = parts.completion_publisher.publish

    def publish_marks(records):
        has_mark = any(is_unique.search(record.key or b"") and record.value for record in records)
        if has_mark:
            reach("mark-before")
        failures = publish(records)
        if has_mark:
            reach("mark-after")
        return failures

    parts.completion_publisher.publish = publish_marks  # type: ignore[method-assign]
    complete = parts.in_flight.complete

    def complete_unique(delivery):
        complete(delivery)
        if delivery.options.get("unique_key"):
            reach("complete")

    parts.in_flight.complete = complete_unique  # type: ignore[method-assign]

    @dramatiq.actor(queue_name=default_queue, max_retries=0)
    def unique(number: int) -> None:
        """A task with a unique key."""
        ledger.write("start", number)
        reach("running")
        ledger.write("done", number)


if os.environ.get("CHAOS_STOP_AT"):
    stop_at(
        **json.loads(
            os.environ["CHAOS_STOP_AT"], object_hook=lambda found: found | {"marker": Path(found["marker"])}
        )
    )
