"""The poll of a member of a group."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import CoordinatorNotAvailableError

from broker.kafka import internals
from broker.kafka.consumer_client import Consumer
from broker.kafka.errors import (
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    RetriableError,
)
from broker.kafka.group_poll import MIN_HEARTBEAT_INTERVAL_S, GroupPoll

FOREVER_MS = 3_600_000
DEADLINE_S = 10.0


@pytest.fixture
def consumer() -> Iterator[Any]:
    """A consumer of a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        made = Consumer(group_id="workers", bootstrap_servers=address, api_version=(3, 9))
        yield made
        made.close(autocommit=False, timeout_ms=0)


@contextmanager
def polling(consumer: Any) -> Iterator[threading.Thread]:
    """A thread that waits in a poll."""
    thread = threading.Thread(target=lambda: consumer.poll(timeout_ms=FOREVER_MS), daemon=True)
    thread.start()
    yield thread
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_a_poll_ends_when_it_is_interrupted(consumer: Any) -> None:
    consumer.subscribe(["work"])
    with polling(consumer) as thread:
        thread.join(0.01)
        consumer.interrupt()


def test_an_interrupt_between_two_polls_ends_the_next_one(consumer: Any) -> None:
    consumer.subscribe(["work"])
    consumer.interrupt()
    assert consumer.poll(timeout_ms=FOREVER_MS) == {}


def test_a_consumer_without_a_group_ignores_an_interrupt(consumer: Any) -> None:
    consumer.interrupt()
    assert consumer.poll(timeout_ms=0) == {}


def test_a_waiting_poll_takes_part_in_the_group_when_there_is_news(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer.subscribe(["work"])
    calls: list[int] = []

    def take_part(client: Any) -> bool:
        calls.append(1)
        if len(calls) == 2:
            consumer.interrupt()
        return False

    monkeypatch.setattr(internals, "take_part", take_part)
    with polling(consumer) as thread:
        while not calls:
            thread.join(0.001)
        consumer._coordinator.request_rejoin()
    assert len(calls) == 2


def test_the_lasting_error_of_a_join_is_raised(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer.subscribe(["work"])
    error = GroupAuthorizationFailedError("workers")
    monkeypatch.setattr(internals, "take_join_failure", lambda client: error)
    with pytest.raises(GroupAuthorizationFailedError):
        consumer.poll(timeout_ms=FOREVER_MS)


def test_a_failed_join_is_repeated_after_a_pause(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer.subscribe(["work"])
    failures: list[Exception | None] = [RetriableError(), None, None]
    joins: list[int] = []

    def take_part(client: Any) -> bool:
        joins.append(len(failures))
        consumer.interrupt()
        return False

    monkeypatch.setattr(internals, "take_join_failure", lambda client: failures.pop(0))
    monkeypatch.setattr(internals, "take_part", take_part)
    assert consumer.poll(timeout_ms=0) == {}
    assert joins == []
    assert consumer.poll(timeout_ms=FOREVER_MS) == {}
    assert len(joins) == 1


class LookUps:
    """The look-ups of the coordinator by a consumer, which end at once.

    Attributes:
      count: The number of look-ups so far.
    """

    def __init__(self, consumer: Any, outcomes: list[Exception]) -> None:
        self.count = 0
        self._consumer, self._outcomes = consumer, outcomes
        consumer._coordinator._send_group_coordinator_request = self._look_up

    async def _look_up(self) -> None:
        self.count += 1
        if len(self._outcomes) == 1:
            self._consumer.interrupt()
        raise self._outcomes.pop(0)

    def wait(self) -> None:
        """Wait for the end of all look-ups that have begun."""

        async def nothing(manager: Any) -> None: ...

        internals.wait(self._consumer, internals.start(self._consumer, nothing), DEADLINE_S * 1000)


def test_a_failed_look_up_of_the_coordinator_is_repeated_after_a_pause(consumer: Any) -> None:
    consumer.subscribe(["work"])
    look_ups = LookUps(consumer, [CoordinatorNotAvailableError(), CoordinatorNotAvailableError()])
    for _ in range(5):
        assert consumer.poll(timeout_ms=0) == {}
        look_ups.wait()
    assert look_ups.count == 1
    assert consumer.poll(timeout_ms=FOREVER_MS) == {}
    assert look_ups.count == 2


def test_the_lasting_error_of_a_look_up_of_the_coordinator_is_raised(consumer: Any) -> None:
    consumer.subscribe(["work"])
    LookUps(consumer, [GroupAuthorizationFailedError("workers"), GroupAuthorizationFailedError("workers")])
    with pytest.raises(GroupAuthorizationFailedError):
        consumer.poll(timeout_ms=FOREVER_MS)


def test_the_metadata_is_requested_when_the_coordinator_is_looked_up_at_a_dead_node(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer.subscribe(["work"])
    look_ups = LookUps(consumer, [KafkaConnectionError("gone")] * 2)
    requests: list[int] = []
    monkeypatch.setattr(consumer, "request_metadata", lambda: requests.append(look_ups.count))
    assert consumer.poll(timeout_ms=FOREVER_MS) == {}
    assert requests[0] == 1


def test_a_member_that_reads_repeats_a_failed_join_after_the_pause(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer.subscribe(["work"])
    monkeypatch.setattr(internals, "keeps_reading", lambda client: True)
    failures: list[Exception | None] = [RetriableError()]
    monkeypatch.setattr(internals, "take_join_failure", lambda client: failures.pop() if failures else None)

    def take_part(client: Any) -> bool:
        consumer.interrupt()
        return False

    monkeypatch.setattr(internals, "take_part", take_part)
    with polling(consumer):
        pass


def test_heartbeats_follow_a_join_closely_and_then_keep_their_interval() -> None:
    client = SimpleNamespace()
    poll = GroupPoll.__new__(GroupPoll)
    poll.__dict__.update(_client=client, _heartbeat_interval_s=1.0)
    sent_s, times_s = 0.0, []
    for _ in range(8):
        sent_s += poll._heartbeat_pace_s(sent_s, 0.0)
        times_s.append(sent_s)
    assert times_s[0] == MIN_HEARTBEAT_INTERVAL_S
    assert times_s == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.6, 3.6])
