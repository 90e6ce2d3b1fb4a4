"""What waits, and is cancelled, through the broker: a first delay, a retry, and what joining counts."""

from __future__ import annotations

import dramatiq
import pytest
import tenacity
from dramatiq.errors import QueueJoinTimeout

from broker import CancelUndecided, KafkaBroker, Outcome, TemporaryError
from tests.broker.conftest import MakeBroker, StartWorker
from tests.waiting import wait_until

QUEUE = "default"
DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = int(DEADLINE_S * 1000)
DAY_MS = 24 * 3600 * 1000


@pytest.fixture(scope="module")
def ran() -> list[str]:
    return []


@pytest.fixture(scope="module")
def broker(make_broker: MakeBroker, start_worker: StartWorker, ran: list[str]) -> KafkaBroker:
    """One with a worker."""
    broker = make_broker()

    @dramatiq.actor(broker=broker)
    def run(name: str) -> None:
        ran.append(name)

    @dramatiq.actor(broker=broker, retry=tenacity.Retrying(wait=tenacity.wait_fixed(3600)))
    def fail() -> None:
        raise TemporaryError("locked")

    start_worker(broker)
    return broker


def test_delays_from_the_shortest_to_beyond_a_month_wait_side_by_side(
    broker: KafkaBroker, ran: list[str]
) -> None:
    task = broker.get_actor("run")
    long = [task.send_with_options(args=("long",), delay=days * DAY_MS) for days in (400, 30, 1)]
    task.send_with_options(args=("a second",), delay=1_000)
    task.send_with_options(args=("a moment",), delay=50)
    wait_until(lambda: len(ran) >= 2, deadline_s=DEADLINE_S, what="the short ones")

    assert sorted(ran) == ["a moment", "a second"]
    wait_until(lambda: broker.delayed(QUEUE).count == 3, deadline_s=DEADLINE_S, what="three to wait")
    waiting = broker.delayed(QUEUE)
    assert [each.message_id for each in waiting.messages] == [each.message_id for each in reversed(long)]
    assert waiting.next_due == waiting.messages[0].due
    assert broker.delayed(QUEUE, limit=1).messages == waiting.messages[:1]
    assert [broker.cancel(each.message_id) for each in long] == [Outcome.CANCELLED] * 3
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)


def test_a_message_that_waits_for_its_retry_can_be_cancelled(broker: KafkaBroker) -> None:
    sent = broker.get_actor("fail").send()
    wait_until(lambda: broker.delayed(QUEUE).count, deadline_s=DEADLINE_S, what="the retry to wait")
    with pytest.raises(QueueJoinTimeout):
        broker.join(QUEUE, timeout=0)

    assert broker.cancel(sent.message_id) is Outcome.CANCELLED

    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert broker.cancel_outcome(sent.message_id) is Outcome.CANCELLED
    assert list(broker.dead_letters(QUEUE)) == []


def test_what_was_sent_without_a_delay_is_not_known_to_wait(broker: KafkaBroker) -> None:
    sent = broker.get_actor("run").send("at once")

    assert broker.cancel(sent.message_id) is Outcome.UNKNOWN
    assert broker.cancel_outcome(sent.message_id) is Outcome.UNKNOWN


def test_without_a_worker_a_cancel_stays_undecided_and_nothing_has_an_outcome(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()

    @dramatiq.actor(broker=broker)
    def task() -> None: ...

    sent = task.send_with_options(delay=DAY_MS)

    with pytest.raises(CancelUndecided):
        broker.cancel(sent.message_id, timeout_s=0.3)
    assert broker.cancel_outcome(sent.message_id) is None
