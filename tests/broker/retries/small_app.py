"""A small application in Dramatiq's own style. It knows no broker: one is set before it is loaded."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.rate_limits.backends import StubBackend

events: list[tuple[Any, ...]] = []
runs: dict[str, int] = {}
lock = threading.Lock()

one_at_a_time = ConcurrentRateLimiter(StubBackend(), "calls", limit=1)
busy = threading.Event()


class NotFound(Exception):
    pass


def run_of(name: str) -> int:
    with lock:
        runs[name] = runs.get(name, 0) + 1
        return runs[name]


@dramatiq.actor(max_retries=2, min_backoff=50, max_backoff=100, on_retry_exhausted="alert")
def charge(order_id: int) -> None:
    events.append(("charge", order_id, run_of(f"charge {order_id}")))
    raise ConnectionError("the bank is away")


@dramatiq.actor
def alert(message: dict[str, Any], counts: dict[str, int]) -> None:
    events.append(
        ("alert", message["actor_name"], tuple(message["args"]), counts["retries"], counts["max_retries"])
    )


@dramatiq.actor(max_retries=5, min_backoff=50, max_backoff=100, throws=(NotFound,))
def receipt(order_id: int) -> None:
    events.append(("receipt", order_id, run_of("receipt")))
    raise NotFound(order_id)


@dramatiq.actor(min_backoff=3_600_000)
def poll() -> None:
    run = run_of("poll")
    events.append(("poll", run))
    if run < 3:
        raise dramatiq.Retry("not ready", delay=50)


@dramatiq.actor(max_retries=20, min_backoff=50, max_backoff=100)
def call(number: int) -> None:
    with one_at_a_time.acquire():
        if number == 1:
            busy.wait(10)
        events.append(("called", number))


def only_twice(retries: int, error: BaseException) -> bool:
    return retries < 2 and isinstance(error, TimeoutError)


@dramatiq.actor(min_backoff=50, max_backoff=100, retry_when=only_twice)
def fetch() -> None:
    events.append(("fetch", run_of("fetch")))
    raise TimeoutError("slow")


@dramatiq.actor(max_retries=0)
def once() -> None:
    events.append(("once", run_of("once")))
    raise RuntimeError("no second chance")


@dramatiq.actor(max_retries=10, min_backoff=50, max_backoff=100)
def hopeful() -> None:
    events.append(("hopeful", run_of("hopeful")))
    raise RuntimeError("never")


def use() -> None:
    """What its users do."""
    charge.send(7)
    receipt.send(7)
    poll.send()
    fetch.send()
    once.send()
    hopeful.send_with_options(max_retries=1)
    call.send(1)
    call.send(2)
