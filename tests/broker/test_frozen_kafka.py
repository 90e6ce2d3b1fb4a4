"""A worker without work whose Kafka stands still."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest

from broker.kafka import internals
from broker.kafka.group_poll import GroupPoll
from dev.server import Server
from tests.broker.conftest import MakeBroker, StartWorker
from tests.waiting import wait_until

#: What one call of poll() may come to: the wait, and what is left of it after a request has timed out.
TURNS_A_POLL = 3


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """How often consumers were polled so far, and how often one of them looked for news in doing so."""
    counted = Counter[str]()

    def count(owner: object, name: str) -> None:
        method: Callable[..., Any] = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(GroupPoll, "poll")
    count(internals, "take_part")
    return lambda: Counter(counted)


def test_an_idle_worker_waits_for_a_frozen_kafka_and_does_not_turn_in_a_circle(
    make_broker: MakeBroker,
    start_worker: StartWorker,
    kafka_server: Server,
    turns: Callable[[], Counter[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, ran = make_broker(bootstrap_servers=kafka_server.address), list[str]()

    @dramatiq.actor(broker=broker, queue_name="one")
    def one() -> None:
        ran.append("one")

    @dramatiq.actor(broker=broker, queue_name="other")
    def other() -> None:
        ran.append("other")

    one.send()
    other.send_with_options(delay=1)
    start_worker(broker)
    wait_until(lambda: sorted(ran) == ["one", "other"], deadline_s=60, what="both messages")
    before = turns()

    kafka_server.pause()
    for queue in ("one", "other"):
        said = f"has not answered the consumer of '{queue}'"
        wait_until(lambda said=said: said in caplog.text, deadline_s=60, what=f"{said!r}")  # type: ignore[misc]
    during = turns() - before
    kafka_server.resume()
    one.send()
    other.send_with_options(delay=1)

    assert 0 < during["take_part"] <= TURNS_A_POLL * during["poll"]
    wait_until(lambda: len(ran) == 4, deadline_s=60, what="what was sent after it")
