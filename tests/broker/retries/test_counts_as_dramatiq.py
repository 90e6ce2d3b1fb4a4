"""Under Dramatiq's rules the option ``retries`` is Dramatiq's count, wherever code of an application sees it.

Dramatiq counts the retry that it does not make: at the last failure ``retries`` is above ``max_retries``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware
from dramatiq.middleware import default_middleware as dramatiqs_middleware

from broker import KafkaBroker, default_middleware
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.dead_letters.samples import QUEUE

JOIN_TIMEOUT_MS = 90_000

#: The options of each actor, and how often it is retried.
ACTORS: dict[str, tuple[dict[str, Any], int]] = {
    "no retry": ({"max_retries": 0}, 0),
    "one retry": ({"max_retries": 1}, 1),
    "three retries": ({"max_retries": 3}, 3),
    "throws": ({"max_retries": 3, "throws": RuntimeError}, 0),
    "retry when": ({"retry_when": lambda retries, error: retries < 2}, 2),
}


class Seen(Middleware):
    """What each signal and each callback sees of a message's count."""

    def __init__(self) -> None:
        self.counts: dict[str, list[tuple[str, Any]]] = {name: [] for name in ACTORS}

    def note(self, message: MessageProxy, where: str) -> None:
        if message.actor_name in self.counts:
            self.counts[message.actor_name].append((where, message.options.get("retries")))

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self.note(message, "before_process_message")

    def after_process_message(self, broker: Broker, message: MessageProxy, **_: Any) -> None:
        self.note(message, "after_process_message")

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        self.note(message, "before_nack")

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        self.note(message, "after_nack")


def run(broker: Any, start_worker: StartWorker) -> dict[str, list[tuple[str, Any]]]:
    """Run all actors until they are given up, and say what was seen of each, in an order of no meaning."""
    seen = Seen()
    broker.add_middleware(seen)

    @dramatiq.actor(broker=broker)
    def failed(message: dict[str, Any], error: dict[str, str]) -> None:
        seen.counts[message["actor_name"]].append(("on_failure", message["options"].get("retries")))

    @dramatiq.actor(broker=broker)
    def exhausted(message: dict[str, Any], counts: dict[str, int]) -> None:
        seen.counts[message["actor_name"]].append(
            ("on_retry_exhausted", (message["options"]["retries"], counts["retries"], counts["max_retries"]))
        )

    def fail() -> None:
        raise RuntimeError("asked to")

    for name, (own, _) in ACTORS.items():
        options: dict[str, Any] = {"on_failure": "failed", "on_retry_exhausted": "exhausted", **own}
        dramatiq.actor(broker=broker, actor_name=name, min_backoff=1, **options)(fail).send()
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    return {name: sorted(counts, key=repr) for name, counts in seen.counts.items()}


@pytest.fixture(scope="module")
def dramatiqs_counts(start_worker: StartWorker) -> dict[str, list[tuple[str, Any]]]:
    broker = StubBroker(fail_fast_default=False)
    return run(broker, start_worker)


@pytest.mark.parametrize(
    "middleware",
    [default_middleware, lambda: [kind() for kind in dramatiqs_middleware]],
    ids=["the default", "Dramatiq's"],
)
def test_what_code_sees_of_the_count_is_what_dramatiqs_own_brokers_show(
    make_broker: MakeBroker,
    start_worker: StartWorker,
    dramatiqs_counts: dict[str, list[tuple[str, Any]]],
    middleware: Callable[[], list[Middleware]],
) -> None:
    broker: KafkaBroker = make_broker(middleware=middleware())
    assert run(broker, start_worker) == dramatiqs_counts
    assert ("on_failure", 4) in dramatiqs_counts["three retries"]

    dead_letters = {each.message.actor_name: each for each in broker.dead_letters(QUEUE) if each.message}
    assert {name: dead_letter.retry_count for name, dead_letter in dead_letters.items()} == {
        name: retries for name, (_, retries) in ACTORS.items()
    }
