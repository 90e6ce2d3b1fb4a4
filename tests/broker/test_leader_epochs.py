"""Questions about leader epochs, answered by a leader that another one has replaced, and by another log's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.structs import TopicPartition

from broker.kafka import internals, leader_epochs
from broker.kafka.leader_epochs import EpochEnd, start_asking
from broker.offsets.truncation import ALL_OF_IT, cut_of

PARTITION = TopicPartition("mail", 0)


@dataclass
class Node:
    """A node that takes itself for the leader.

    Attributes:
      epoch: The leader epoch that it knows of.
      ends: Where the epochs end in its log.
    """

    epoch: int
    ends: dict[int, int]

    def end_of(self, epoch: int) -> tuple[int, int]:
        known = [found for found in self.ends if found <= epoch]
        return (max(known), self.ends[max(known)]) if known and epoch <= self.epoch else (-1, -1)


@dataclass
class Manager:
    """The connections of a client whose metadata name one node first, and another one after some requests."""

    nodes: list[Node]
    requests_until_news: int = 3
    leader: int = 0
    asked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = SimpleNamespace(
            leader_for_partition=lambda partition: self.leader,
            leader_epoch_for_partition=lambda partition: self.nodes[self.leader].epoch,
            request_update=self._hear,
        )

    def _hear(self) -> None:
        self.requests_until_news -= 1
        if self.requests_until_news == 0:
            self.leader = len(self.nodes) - 1

    async def send(self, request: Any, *, node_id: int) -> Any:
        self.asked.append(node_id)
        (topic,) = request.topics
        (asked,) = topic[1]
        epoch, end_offset = self.nodes[node_id].end_of(asked.leader_epoch)
        found = SimpleNamespace(partition=0, error_code=0, leader_epoch=epoch, end_offset=end_offset)
        return SimpleNamespace(topics=[SimpleNamespace(topic="mail", partitions=[found])])

    def call_soon(self, ask: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        return asyncio.run(ask(*arguments))

    def run(self, wait_for: object, answer: Any, timeout_ms: float) -> Any:
        return answer

    wait_for = None


@pytest.fixture(autouse=True)
def _own_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The questions run in asyncio's loop, which knows nothing of kafka-python's selector."""
    monkeypatch.setattr(internals, "sleep", lambda delay_s: asyncio.sleep(0.01))


def end_of(manager: Manager, epoch: int) -> EpochEnd:
    kafka: Any = SimpleNamespace(_manager=manager)
    found: EpochEnd = start_asking(kafka, {PARTITION: epoch}, timeout_ms=5_000)[PARTITION]
    return found


def test_a_leader_that_has_not_heard_of_the_epoch_asked_about_is_not_believed() -> None:
    # Given a log that was read up to offset 99, in an epoch that a node that has just thawed does not know
    thawed, leader = Node(6, {6: 90}), Node(7, {6: 90, 7: 120})
    manager = Manager([thawed, leader])

    answer = end_of(manager, 7)

    assert answer == EpochEnd(7, 120, 7)
    assert cut_of(99, 7, answer, end=120) is None
    assert manager.asked[0] == 0
    assert manager.asked[-1] == 1


def test_a_log_whose_leader_stays_at_an_earlier_epoch_is_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leader_epochs, "OLD_LEADER_TIMEOUT_S", 0.1)
    manager = Manager([Node(0, {0: 300})])

    answer = end_of(manager, 7)

    assert answer == EpochEnd(-1, -1, 0)
    assert cut_of(99, 7, answer, end=300) == ALL_OF_IT


def test_a_leader_of_the_same_epoch_is_asked_once() -> None:
    manager = Manager([Node(7, {6: 90, 7: 120})])

    assert end_of(manager, 7) == EpochEnd(7, 120, 7)
    assert manager.asked == [0]
