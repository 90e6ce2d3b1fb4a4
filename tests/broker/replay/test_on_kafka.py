"""Replays whose process is killed, and logs that only a real Kafka has."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import dramatiq
import pytest

from broker import KafkaBroker
from broker.replay.replayer import TOO_LARGE
from broker.replay.selection import UNFINISHED
from dev.stack import ROOT, Stack
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.replay.replay_and_die import QUEUE
from tests.broker.test_transactions import send, transactional

DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = 60_000
REASON = "a test"


def kill_a_replay(stack: Stack, broker: KafkaBroker, when: str, step: int) -> None:
    arguments = [
        stack.bootstrap_servers, broker.parts.topics.queue(""), broker.parts.settings.group_id, when,
        str(step),
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.broker.replay.replay_and_die", *arguments], cwd=ROOT
    )
    try:
        assert process.wait(DEADLINE_S) == -9
    finally:
        process.kill()


def test_a_replay_killed_again_and_again_and_repeated_runs_each_message_once(
    stack: Stack, make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker, ran = make_broker(partitions=2), list[int]()

    @dramatiq.actor(broker=broker)
    def task(number: int) -> None:
        ran.append(number)

    start_worker(broker)
    for number in range(8):
        task.send(number)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    ran.clear()

    for when, step in (("after", 1), ("after", 2), ("amid", 2), ("before", 3)):
        kill_a_replay(stack, broker, when, step)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    result = broker.replay(QUEUE, dry_run=False, reason=REASON)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)

    assert (result.sent_before, result.sent, len(result.interrupted)) == (5, 3, 4)
    assert Counter(ran) == Counter(range(8))


@pytest.mark.real_kafka("transactions")
def test_messages_of_aborted_and_of_open_transactions_do_not_run(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker, ran = make_broker(partitions=1), list[str]()

    @dramatiq.actor(broker=broker)
    def task(word: str) -> None:
        ran.append(word)

    broker.parts.topics.ensure(broker.parts.topics.of_worker(QUEUE))
    start_worker(broker)
    with transactional(broker) as producer:
        send(producer, task, "aborted")
        producer.abort_transaction()
        producer.begin_transaction()
        send(producer, task, "committed")
        producer.commit_transaction()
        broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
        producer.begin_transaction()
        send(producer, task, "open")
        task.send("behind")

        result = broker.replay(QUEUE, dry_run=False, reason=REASON)

        assert (result.sent, result.skipped) == (1, {UNFINISHED: 2})
        producer.abort_transaction()
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert Counter(ran) == {"committed": 2, "behind": 1}


@pytest.mark.real_kafka("a topic's max.message.bytes")
def test_a_message_that_fitted_only_when_it_was_compressed_holds_up_no_other(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker, ran = make_broker(partitions=1, client_options={"compression_type": "gzip"}), list[int]()

    @dramatiq.actor(broker=broker)
    def task(text: str) -> None:
        ran.append(len(text))

    start_worker(broker)
    for text in ("a", "x" * 1_500_000, "b"):
        task.send(text)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    plain = make_broker(
        namespace=broker.parts.topics.queue(""), group_id=broker.parts.settings.group_id, partitions=1
    )
    plain.declare_queue(QUEUE)

    result = plain.replay(QUEUE, dry_run=False, reason=REASON)
    assert (result.sent, result.skipped) == (2, {TOO_LARGE: 1})
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert Counter(ran) == {1: 4, 1_500_000: 1}
    # With compression the large one runs, too.
    assert broker.replay(QUEUE, dry_run=False, reason=REASON).sent == 3
