"""A worker killed at any step of giving a message up loses nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import dramatiq
import pytest

from broker import KafkaBroker
from dev.child import Child
from dev.stack import ROOT, Stack
from tests.broker.conftest import MakeBroker
from tests.broker.dead_letters.samples import QUEUE
from tests.waiting import wait_until

DEADLINE_S = 120.0
MESSAGES = 10
STEPS = [
    ("before", "delayed"), ("after", "delayed"),
    ("before", "dlq"), ("after", "dlq"),
    ("before", "told"), ("after", "told"),
    ("before", "commit"),
]  # fmt: skip


@dataclass(frozen=True)
class Crash:
    """A worker that dies at one step, and the one that comes after it.

    Attributes:
      sent: The ids of the messages.
      ledger: Where each worker writes the id of what it was told of.
    """

    broker: KafkaBroker
    sent: set[str]
    ledger: Path
    dying: Child
    next: Child

    def told(self) -> set[str]:
        return set(self.ledger.read_text().split())


@pytest.fixture(scope="module")
def crashes(
    stack: Stack, make_broker: MakeBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Crash]]:
    """One crash for each step, all at once: it takes a while until a dead worker's partitions are free."""
    with ExitStack() as killing:

        def prepare(when: str, what: str) -> Crash:
            home, broker = tmp_path_factory.mktemp(f"{when}-{what}"), make_broker()
            ledger, namespace = home / "ledger", broker.parts.topics.queue("")
            module = "tests.broker.dead_letters.worker_that_dies"
            command = [sys.executable, "-m", module, stack.bootstrap_servers, namespace, str(ledger)]
            task = dramatiq.actor(broker=broker, actor_name="task")(do_nothing)
            sent = broker.enqueue_many([task.message() for _ in range(MESSAGES)])
            dying = Child("the first worker", [*command, when, what], log=home / "first.log", cwd=ROOT)
            after = Child("the next worker", [*command, "never", ""], log=home / "next.log", cwd=ROOT)
            killing.callback(dying.kill)
            killing.callback(after.kill)
            return Crash(broker, {message.message_id for message in sent}, ledger, dying, after)

        crashes = {step: prepare(*step) for step in STEPS}
        for crash in crashes.values():
            crash.dying.start()
        for crash in crashes.values():
            assert crash.dying.wait(DEADLINE_S) == -9, crash.dying.tail()
            crash.next.start()
        yield crashes


def do_nothing() -> None: ...


@pytest.mark.parametrize("step", STEPS, ids=" ".join)
def test_after_a_crash_every_message_is_still_given_up_and_told(
    crashes: dict[tuple[str, str], Crash], step: tuple[str, str]
) -> None:
    crash = crashes[step]
    crash.broker.join(QUEUE, timeout=int(DEADLINE_S * 1000))
    wait_until(lambda: crash.told() == crash.sent, deadline_s=DEADLINE_S, what="all to be told")
    crash.next.kill()
    dead_letters = list(crash.broker.dead_letters(QUEUE))
    counts = Counter(dead_letter.message.message_id for dead_letter in dead_letters if dead_letter.message)
    assert set(counts) == crash.sent
    assert {dead_letter.retry_count for dead_letter in dead_letters} == {1}
    # A crash can repeat what was done and not committed yet: each of the two attempts once.
    assert max(counts.values()) <= 4
