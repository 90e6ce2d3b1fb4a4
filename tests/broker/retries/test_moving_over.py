"""An existing Dramatiq application moves over by changing its broker."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq import Broker, Worker
from dramatiq.brokers.stub import StubBroker

from broker import KafkaBroker
from tests.broker.conftest import MakeBroker
from tests.waiting import wait_until

DEADLINE_S = 60.0
APP = Path(__file__).with_name("small_app.py")


def dramatiqs_own(_: MakeBroker) -> Broker:
    return StubBroker(fail_fast_default=False)


def ours(make_broker: MakeBroker) -> Broker:
    return make_broker()


@pytest.fixture
def _broker_is_put_back() -> Iterator[None]:
    before = dramatiq.broker.global_broker
    yield
    dramatiq.broker.global_broker = before


def dead_letters(broker: Broker) -> list[str]:
    if isinstance(broker, KafkaBroker):
        return sorted(
            dead_letter.message.actor_name
            for dead_letter in broker.dead_letters("default")
            if dead_letter.message
        )
    assert isinstance(broker, StubBroker)
    return sorted(message.actor_name for message in broker.dead_letters)


@pytest.mark.usefixtures("_broker_is_put_back")
@pytest.mark.parametrize("make", [dramatiqs_own, ours])
def test_it_retries_gives_up_and_is_limited_as_before(
    make_broker: MakeBroker, make: Callable[[MakeBroker], Broker]
) -> None:
    broker = make(make_broker)
    dramatiq.set_broker(broker)
    app: dict[str, Any] = runpy.run_path(str(APP))
    events: list[tuple[Any, ...]] = app["events"]
    app["use"]()
    worker = Worker(broker, worker_timeout=100, worker_threads=4)
    worker.start()
    try:
        wait_until(lambda: ("poll", 3) in events, deadline_s=DEADLINE_S, what="the poll that is ready")
        app["busy"].set()
        broker.join("default", timeout=int(DEADLINE_S * 1000))
    finally:
        worker.stop()

    assert Counter(events) == Counter(
        [
            *[("charge", 7, run) for run in (1, 2, 3)], ("alert", "charge", (7,), 2, 2),
            ("receipt", 7, 1),
            *[("poll", run) for run in (1, 2, 3)],
            *[("fetch", run) for run in (1, 2, 3)],
            ("once", 1),
            *[("hopeful", run) for run in (1, 2)],
            ("called", 1), ("called", 2),
        ]
    )  # fmt: skip
    assert dead_letters(broker) == ["charge", "fetch", "hopeful", "once", "receipt"]
