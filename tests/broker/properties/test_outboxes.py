"""Outboxes of which Kafka refuses some records, at sight or once others are in it, at any number of tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import pytest
from dramatiq.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from kafka.structs import TopicPartition

from broker.complete import completer
from broker.complete.completer import Completer, Settled
from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.deliveries.delivery import Delivery, Origin
from broker.deliveries.in_flight import InFlightDeliveries
from broker.offsets.commit_metadata import CommitState
from broker.produce.record import Record

DEADLINE_S = 60.0


class Fate(Enum):
    """How Kafka answers a record in the end."""

    TAKEN = "taken"
    REFUSED_AT_SIGHT = "its size is compared with the limit of its topic before it is sent"
    REFUSED = "the limit was not known"


@dataclass(frozen=True)
class Planned:
    """A record of an outbox: what Kafka does with it, and how often it gives no answer before."""

    fate: Fate
    timeouts: int


FATES = st.builds(Planned, st.sampled_from(Fate), st.integers(0, 2))
OUTBOXES = st.tuples(st.none() | FATES, st.lists(FATES, max_size=4), st.integers(0, 4))


@dataclass
class ModelOfKafka:
    """Takes and refuses records as planned."""

    plans: dict[bytes, Planned] = field(default_factory=dict)
    tries: dict[bytes, int] = field(default_factory=dict)
    log: list[bytes] = field(default_factory=list)

    def refusals(self, records: Sequence[Record]) -> dict[int, BaseException]:
        return {
            index: MessageSizeTooLargeError("known before")
            for index, record in enumerate(records)
            if self._plan(record).fate is Fate.REFUSED_AT_SIGHT
        }

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        failures = self.refusals(records)
        for index, record in enumerate(records):
            if index in failures:
                continue
            assert record.value is not None
            self.tries[record.value] = self.tries.get(record.value, 0) + 1
            if self.tries[record.value] <= self._plan(record).timeouts:
                failures[index] = KafkaTimeoutError("no answer")
            elif self._plan(record).fate is Fate.REFUSED:
                failures[index] = MessageSizeTooLargeError("Kafka's answer")
            else:
                self.log.append(record.value)
        return failures

    def _plan(self, record: Record) -> Planned:
        assert record.value is not None
        return self.plans.get(record.value, Planned(Fate.TAKEN, 0))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completer, "FIRST_BACKOFF_S", 0.0)
    monkeypatch.setattr(completer, "MAX_BACKOFF_S", 0.0)


def give_up(settled: Settled, error: BaseException) -> None:
    """As the broker does: a dead letter takes the place of the outbox."""
    assert isinstance(settled, Delivery)

    def prepare() -> None:
        settled.dead_letter = Record("mail_dlq", b"%d dead letter" % settled.origin.offset)
        settled.outbox.append(settled.dead_letter)

    settled.drop_outbox()
    settled.preparation = prepare


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(outboxes=st.lists(OUTBOXES, min_size=1, max_size=3))
def test_a_message_is_tried_again_or_given_up_and_never_both(
    outboxes: list[tuple[Planned | None, list[Planned], int]],
) -> None:
    kafka, in_flight = ModelOfKafka(), InFlightDeliveries()
    assigned = AssignedPartition(
        TopicPartition("mail", 0), CommitState(0, -1), epoch=1, capacity=Capacity(len(outboxes))
    )
    deliveries = []
    for offset, (retry, others, place) in enumerate(outboxes):
        message: Message[None] = Message("mail", "send", (), {}, {})
        mine = Delivery(message, origin=Origin("mail", 0, offset), raw=b"", headers=[], assigned=assigned)
        assert assigned.tracker.deliver(offset)
        assert in_flight.dispatch(mine, "a consumer")
        for number, plan in enumerate(others):
            mine.outbox.append(Record("other", b"%d record %d" % (offset, number)))
            kafka.plans[b"%d record %d" % (offset, number)] = plan
        if retry is not None:
            mine.retry = Record("delayed", b"%d retry" % offset)
            mine.outbox.insert(place, mine.retry)
            kafka.plans[b"%d retry" % offset] = retry
        deliveries.append(mine)

    settling = Completer(kafka, in_flight, give_up=give_up)  # type: ignore[arg-type]
    for mine in deliveries:
        settling.settle(mine)
    settling.start()
    assert settling.drain(DEADLINE_S)
    settling.stop(0.0)

    for offset, (retry, others, _) in enumerate(outboxes):
        assert deliveries[offset].completed
        refused = any(plan.fate is not Fate.TAKEN for plan in others)
        tried_again, given_up = (
            kafka.log.count(b"%d %s" % (offset, kind)) for kind in (b"retry", b"dead letter")
        )
        if retry is None:
            assert (tried_again, given_up) == (0, int(refused))
        else:
            assert tried_again + given_up == 1
            assert given_up or retry.fate is Fate.TAKEN
        if tried_again:
            taken = [number for number, plan in enumerate(others) if plan.fate is Fate.TAKEN]
            assert all(kafka.log.count(b"%d record %d" % (offset, number)) == 1 for number in taken)
        if given_up and any(plan.fate is Fate.REFUSED_AT_SIGHT for plan in others) and len(others) > 1:
            assert not any(kafka.log.count(b"%d record %d" % (offset, n)) for n in range(len(others)))
