"""The application behind these tests, run by the `dramatiq` command line: one actor for each feature.

Everything it needs is in the environment, see `Application.env`.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.middleware import AsyncIO, CurrentMessage, GroupCallbacks, Shutdown, TimeLimitExceeded
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.results import Results

from broker import KafkaBroker, default_middleware
from tests.broker.features.journal import Journal
from tests.broker.features.postgres_backends import PostgresRateLimits, PostgresResults

#: A task that waits for something gives up then, so that no process outlives a failed test for long.
THREAD_START_TIMEOUT_S = 60

journal = Journal(Path(os.environ["JOURNAL"]))
rate_limits = PostgresRateLimits(os.environ["DATABASE_URL"])
namespace = os.environ["NAMESPACE"]

broker = KafkaBroker(
    os.environ["KAFKA_BOOTSTRAP_SERVERS"],
    namespace=namespace,
    group_id=f"{namespace}workers",
    session_timeout_ms=int(os.environ["SESSION_TIMEOUT_MS"]),
    delay_index_dir=os.environ["DELAY_INDEX_DIR"],
    middleware=[
        *default_middleware(),
        AsyncIO(),
        CurrentMessage(),
        GroupCallbacks(rate_limits),
        Results(backend=PostgresResults(os.environ["DATABASE_URL"])),
    ],
)
dramatiq.set_broker(broker)


def note(event: str, **details: Any) -> None:
    message = CurrentMessage.get_current_message()
    journal.note(event, message_id=message.message_id if message else None, **details)


@dramatiq.actor
def remember(text: str) -> None:
    note("remembered", text=text)


@dramatiq.actor(queue_name="other")
def remember_elsewhere(text: str) -> None:
    note("remembered elsewhere", text=text)


@dramatiq.actor(store_results=True)
def add(x: int, y: int) -> int:
    return x + y


@dramatiq.actor(store_results=True, max_retries=0)
def refuse(reason: str) -> None:
    raise ValueError(reason)


@dramatiq.actor(time_limit=300, max_retries=0)
def run_for_too_long() -> None:
    deadline_s = time.monotonic() + THREAD_START_TIMEOUT_S
    try:
        while time.monotonic() < deadline_s:
            time.sleep(0.01)
    except TimeLimitExceeded:
        note("time limit exceeded")
        raise


# Its retry waits for longer than the worker takes to stop.
@dramatiq.actor(notify_shutdown=True, min_backoff=5_000, max_backoff=5_000)
def run_until_shutdown() -> None:
    note("started")
    stop_file = Path(os.environ["JOURNAL"]).with_name("shut-down-once")
    deadline_s = time.monotonic() + THREAD_START_TIMEOUT_S
    try:
        while time.monotonic() < deadline_s and not stop_file.exists():
            time.sleep(0.01)
    except Shutdown:
        note("shut down")
        stop_file.touch()
        raise
    note("finished")


@dramatiq.actor
def succeeded(message: dict[str, Any], result: Any) -> None:
    note("succeeded", of=message["message_id"], result=result)


@dramatiq.actor
def failed(message: dict[str, Any], error: dict[str, str]) -> None:
    note("failed", of=message["message_id"], error=error)


@dramatiq.actor
def exhausted(message: dict[str, Any], counts: dict[str, Any]) -> None:
    note("exhausted", of=message["message_id"], retries=counts["retries"])


@dramatiq.actor
def group_done(name: str) -> None:
    note("group done", name=name)


@dramatiq.actor
async def remember_later(text: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    note("remembered asynchronously", text=text)


@dramatiq.actor(max_retries=50, min_backoff=50, max_backoff=100)
def run_alone(limit: str) -> None:
    with ConcurrentRateLimiter(rate_limits, limit, limit=1).acquire():
        note("alone: entered", limit=limit)
        time.sleep(0.05)
        note("alone: left", limit=limit)
