"""A message that kills its worker ends as a dead letter; what runs beside it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import dramatiq
import pytest

from dev.child import Child
from dev.stack import ROOT, Stack
from tests.broker.conftest import MakeBroker
from tests.broker.dead_letters.samples import QUEUE
from tests.waiting import wait_until

DEADLINE_S = 150.0
MAX_STARTS = 10
INNOCENTS = 20


@pytest.mark.real_kafka("keep commit metadata")
def test_a_message_that_kills_its_workers_is_given_up_and_told(
    stack: Stack, make_broker: MakeBroker, tmp_path: Path
) -> None:
    broker = make_broker(partitions=1)

    @dramatiq.actor(broker=broker)
    def task(name: str) -> None: ...

    names = [*(f"before {number}" for number in range(INNOCENTS)), "poison", "after"]
    messages = {name: task.message(name) for name in names}
    broker.enqueue_many(messages.values())
    ledger = tmp_path / "ledger"
    ledger.touch()
    arguments = [stack.bootstrap_servers, broker.parts.topics.queue(""), str(ledger)]
    command = [sys.executable, "-m", "tests.broker.dead_letters.worker_with_poison", *arguments]
    worker = Child("the worker", command, log=tmp_path / "worker.log", cwd=ROOT)
    starts = 0

    def done() -> bool:
        nonlocal starts
        if not worker.is_running and starts < MAX_STARTS:
            worker.start()
            starts += 1
        return "told PoisonMessage" in ledger.read_text()

    try:
        wait_until(done, deadline_s=DEADLINE_S, what="the poison to be told")
        broker.join(QUEUE, timeout=int(DEADLINE_S * 1000))
    finally:
        worker.kill()
    [dead_letter] = broker.dead_letters(QUEUE)
    assert dead_letter.message == messages["poison"]
    assert dead_letter.error_type == "PoisonMessage"
    lines = set(ledger.read_text().splitlines())
    assert lines == {"told PoisonMessage", *(f"done {name}" for name in names if name != "poison")}
