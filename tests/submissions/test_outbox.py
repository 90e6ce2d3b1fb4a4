"""What a process cannot publish it leaves to others."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import BrokerConnectionError
from sqlalchemy import Engine

from broker import EnqueueFailed, KafkaBroker
from db.outbox import Unpublished
from dev.stack import Stack
from settings import Settings
from submissions.database import Database
from submissions.outbox import BATCH, Outbox
from tests.db.rows import execute, load_sample_ads, submit
from tests.waiting import wait_until

#: Longer than any test: a row that one process keeps is published by no other.
LEASE_S = 3600.0


class RefusedByKafka(KafkaBroker):
    """A broker whose Kafka answers and refuses its records, as those of a clock a day ahead."""

    attempts: int = 0
    error: Exception | None = None

    def enqueue_many(self, messages: Any, **options: Any) -> Any:
        self.attempts += 1
        sent: Sequence[dramatiq.Message[Any]] = list(messages)
        raise self.error or EnqueueFailed(
            {one.message_id: BrokerConnectionError("InvalidTimestamp") for one in sent}
        )


@pytest.fixture
def database_of_outboxes(stack: Stack, database: Engine) -> Database:
    load_sample_ads(database, 3)
    return Database(Settings(database_url=stack.database_url))


@pytest.fixture
def refused(stack: Stack, namespace: str) -> Iterator[RefusedByKafka]:
    with closing(RefusedByKafka(stack.bootstrap_servers, namespace=namespace)) as broker:
        broker.declare_queue("moderation")
        yield broker


def outbox_of(broker: KafkaBroker, database: Database) -> Outbox:
    return Outbox(broker, database.statements, lease_s=LEASE_S, interval_s=0.05)


def unpublished(engine: Engine) -> int:
    [(count,)] = execute(engine, "SELECT count(*) FROM moderation_results WHERE publish_after IS NOT NULL")
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("error", [None, RuntimeError("a mistake")], ids=["refused", "mistake"])
def test_rows_that_one_process_cannot_publish_another_publishes(
    stack: Stack,
    namespace: str,
    database: Engine,
    database_of_outboxes: Database,
    refused: RefusedByKafka,
    error: Exception | None,
) -> None:
    refused.error = error
    first = outbox_of(refused, database_of_outboxes)
    submit(database, [1] * 3 * BATCH, lease_s=0)
    first.start()
    try:
        wait_until(lambda: refused.attempts >= 3, deadline_s=60, what="the first process to try")
        broker = KafkaBroker(stack.bootstrap_servers, namespace=namespace)
        broker.declare_queue("moderation")
        with closing(broker):
            second = outbox_of(broker, database_of_outboxes)
            second.start()
            try:
                wait_until(lambda: unpublished(database) == 0, deadline_s=60, what="the second to publish")
            finally:
                second.stop()
    finally:
        first.stop()


def test_a_process_that_cannot_publish_claims_single_rows(
    database: Engine, database_of_outboxes: Database, refused: RefusedByKafka
) -> None:
    outbox = outbox_of(refused, database_of_outboxes)
    submit(database, [1] * 10, lease_s=0)
    outbox.start()
    try:
        for attempts in (2, 3, 4):
            wait_until(lambda n=attempts: refused.attempts >= n, deadline_s=60, what="an attempt")  # type: ignore[misc]
            leased = "SELECT count(*) FROM moderation_results WHERE publish_after > now()"
            [(count,)] = execute(database, leased)
            assert isinstance(count, int)
            assert count <= 1
    finally:
        outbox.stop()


def test_what_a_process_accepted_and_cannot_publish_is_due_for_others_at_once(
    database: Engine, database_of_outboxes: Database, refused: RefusedByKafka
) -> None:
    outbox = outbox_of(refused, database_of_outboxes)
    outbox.start()
    try:
        lease = outbox.lease()
        message_ids = submit(database, [1, 2], lease_s=LEASE_S)
        outbox.publish([Unpublished(one, 0, 1) for one in message_ids], lease)
        due = "SELECT count(*) FROM moderation_results WHERE publish_after <= now()"
        wait_until(
            lambda: refused.attempts > 0 and execute(database, due) == [(2,)],
            deadline_s=60,
            what="both to be due",
        )
    finally:
        outbox.stop()
