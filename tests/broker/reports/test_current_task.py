"""current_task: what a task learns of itself, and reports of itself."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import AsyncIO

from broker import KafkaBroker, NoCurrentTask, current_task, default_middleware
from broker.reports.runs import current_delivery
from broker.testing import advance, drain


@pytest.fixture
def application_broker(monkeypatch: pytest.MonkeyPatch) -> KafkaBroker:
    broker = KafkaBroker(middleware=[*default_middleware(), AsyncIO()])
    monkeypatch.setattr(dramatiq.broker, "global_broker", broker)
    return broker


@pytest.fixture(autouse=True)
def _kafka_in_memory(kafka_broker: KafkaBroker) -> None: ...


def test_a_task_sees_its_message_id_and_its_attempt() -> None:
    seen: list[tuple[str, int]] = []

    @dramatiq.actor(max_retries=1, min_backoff=1000, max_backoff=1000, throws=ValueError)
    def task() -> None:
        seen.append((current_task.message_id, current_task.attempt))
        raise OSError("asked to")

    sent = task.send()
    drain(raise_errors=False)
    advance(seconds=5)
    drain(raise_errors=False)
    assert seen == [(sent.message_id, 1), (sent.message_id, 2)]


def test_a_coroutine_sees_the_task_that_it_is() -> None:
    seen: dict[str, Any] = {}

    @dramatiq.actor
    async def task() -> None:
        await asyncio.sleep(0)
        current_task.progress(0.5)
        seen["id"] = current_task.message_id
        seen["thread"] = threading.current_thread()
        delivery = current_delivery.get()
        assert delivery is not None
        assert delivery.progress is not None
        seen["progress"] = delivery.progress[:2]

    sent = task.send()
    drain()
    assert seen["id"] == sent.message_id
    assert seen["thread"] is not threading.current_thread()
    assert seen["progress"] == (0.5, "")


def test_progress_keeps_a_fraction_and_one_line() -> None:
    seen: list[object] = []

    @dramatiq.actor
    def task() -> None:
        current_task.progress(0.4, "reading page 12\nof a book")
        delivery = current_delivery.get()
        assert delivery is not None
        assert delivery.progress is not None
        seen.append(delivery.progress[:2])
        current_task.progress(1, "x" * 500)
        assert delivery.progress is not None
        seen.append((delivery.progress[0], len(delivery.progress[1])))

    task.send()
    drain()
    assert seen == [(0.4, "reading page 12"), (1.0, 200)]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), "0.4", True, None])
def test_progress_that_is_no_fraction_is_refused(fraction: Any) -> None:
    @dramatiq.actor(max_retries=0)
    def task() -> None:
        current_task.progress(fraction)

    task.send()
    with pytest.raises((TypeError, ValueError), match="progress"):
        drain()


def test_outside_of_a_task_there_is_a_clear_error() -> None:
    @dramatiq.actor
    def task() -> None: ...

    for use in (
        lambda: current_task.message_id,
        lambda: current_task.attempt,
        lambda: current_task.progress(0),
    ):
        with pytest.raises(NoCurrentTask, match="no task runs here"):
            use()
        task.send()
        drain()  # a task that has ended is none either
