"""What becomes of a submission: a verdict, once; or, when nothing helps, a dead letter and an error."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import cast
from uuid import uuid4

import dramatiq
import pytest
from sqlalchemy import Engine

from broker import DeadLetter, KafkaBroker
from broker.testing import advance, assert_dead, crash_worker, dead, drain
from broker.testing.kit import CrashPoint
from db.errors import RowLocked, SchemaMissing
from db.outbox import Unpublished
from db.submissions import Submission
from settings import get_settings
from submissions.database import Database
from submissions.message import ACTOR, message_of
from tasks.failures import FailureRecorder
from tests.db.rows import execute, submission_of, submit

pytestmark = pytest.mark.usefixtures("ads")


def send(kafka_broker: KafkaBroker, message_id: str, item_id: int = 1) -> None:
    kafka_broker.enqueue(message_of(Unpublished(message_id, 0, item_id)))


def read(engine: Engine, message_id: str) -> Submission:
    found = submission_of(engine, message_id)
    assert found is not None
    return found


@contextmanager
def ads_away(engine: Engine) -> Iterator[None]:
    """For a while PostgreSQL has no table of ads: a temporary error for whoever reads one."""
    execute(engine, "ALTER TABLE items RENAME TO items_away")
    try:
        yield
    finally:
        execute(engine, "ALTER TABLE items_away RENAME TO items")


def test_a_submitted_ad_gets_its_verdict(kafka_broker: KafkaBroker, database: Engine) -> None:
    [message_id] = submit(database, [2])
    send(kafka_broker, message_id, 2)
    drain()
    found = read(database, message_id)
    assert found.status == "completed"
    assert found.probability is not None
    assert 0 <= found.probability <= 1
    assert found.is_violation is not None
    assert found.processed_at is not None
    assert dead() == []


def test_a_missing_ad_fails_and_goes_to_the_dead_letters_at_once(
    kafka_broker: KafkaBroker, database: Engine
) -> None:
    [message_id] = submit(database, [2])
    execute(database, "DELETE FROM items WHERE id = 2")
    send(kafka_broker, message_id, 2)
    drain(raise_errors=False)
    assert assert_dead(ACTOR, "PermanentError").retry_count == 0
    found = read(database, message_id)
    assert (found.status, found.error_message) == ("failed", "There is no ad with item_id 2")


def test_a_temporary_error_leaves_the_row_pending_until_an_attempt_succeeds(
    kafka_broker: KafkaBroker, database: Engine
) -> None:
    [message_id] = submit(database)
    send(kafka_broker, message_id)
    with ads_away(database), pytest.raises(SchemaMissing):
        drain()
    assert read(database, message_id).status == "pending"
    advance(minutes=5)
    assert drain() == 1
    assert read(database, message_id).status == "completed"
    assert dead() == []


def test_after_three_attempts_a_temporary_error_is_a_dead_letter_and_the_row_fails(
    kafka_broker: KafkaBroker, database: Engine
) -> None:
    [message_id] = submit(database)
    send(kafka_broker, message_id)
    fail_three_times(database)
    found = read(database, message_id)
    assert found.status == "failed"
    assert found.error_message is not None
    assert "migrations" in found.error_message
    assert assert_dead(ACTOR, SchemaMissing).retry_count == 2


LOCK = "SELECT FROM moderation_results WHERE message_id = '{}' FOR UPDATE"


def test_a_submission_whose_row_is_locked_comes_back_until_it_is_not_and_counts_no_attempt(
    kafka_broker: KafkaBroker, database: Engine
) -> None:
    locked, other = submit(database, [1, 2])
    with database.connect() as somebody:
        somebody.exec_driver_sql(LOCK.format(locked))
        send(kafka_broker, locked)
        send(kafka_broker, other, 2)
        for _ in range(5):  # more than the attempts of a message
            drain()
            advance(seconds=2)
        assert read(database, other).status == "completed"
        somebody.rollback()
    assert drain() == 1
    assert read(database, locked).status == "completed"
    assert dead() == []


def test_a_failure_whose_row_is_locked_holds_up_no_other_outcome(database: Engine, tasks: ModuleType) -> None:
    locked, other = submit(database, [1, 2])
    recorder = FailureRecorder(Database(get_settings()))
    with database.connect() as somebody:
        somebody.exec_driver_sql(LOCK.format(locked))
        with pytest.raises(RowLocked):
            recorder.record(dead_letter_of(locked, 1))
        recorder.record(dead_letter_of(other, 2))
        assert read(database, other).status == "failed"
        somebody.rollback()
    recorder.record(dead_letter_of(locked, 1))
    assert read(database, locked).status == "failed"


def dead_letter_of(message_id: str, item_id: int) -> DeadLetter:
    return cast(
        DeadLetter,
        SimpleNamespace(
            message=message_of(Unpublished(message_id, 0, item_id)), error="because", error_type=""
        ),
    )


def fail_three_times(engine: Engine) -> None:
    with ads_away(engine):
        for _ in range(3):
            assert drain(raise_errors=False) == 1
            advance(minutes=5)
        assert drain() == 0


def test_a_second_delivery_changes_nothing(kafka_broker: KafkaBroker, database: Engine) -> None:
    [message_id] = submit(database)
    send(kafka_broker, message_id)
    drain()
    first = read(database, message_id)
    for _ in range(4):
        send(kafka_broker, message_id)
    assert drain() == 4
    assert read(database, message_id) == first
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(1,)]


@pytest.mark.parametrize("at", ["before", "after", "settled"])
def test_a_worker_that_dies_leaves_one_verdict(
    kafka_broker: KafkaBroker, database: Engine, at: CrashPoint
) -> None:
    [message_id] = submit(database)
    send(kafka_broker, message_id)
    with crash_worker(at):
        drain()
    between = read(database, message_id)
    assert between.status == ("pending" if at == "before" else "completed")
    drain()
    assert read(database, message_id).status == "completed"
    assert at == "before" or read(database, message_id) == between
    assert dead() == []


def test_the_late_twin_of_a_finished_task_cannot_fail_it(kafka_broker: KafkaBroker, database: Engine) -> None:
    [message_id] = submit(database)
    send(kafka_broker, message_id)
    drain()
    first = read(database, message_id)
    execute(database, "DELETE FROM items WHERE id = 1")
    send(kafka_broker, message_id)
    drain(raise_errors=False)
    assert_dead(ACTOR)
    assert read(database, message_id) == first


def test_a_dead_letter_put_back_on_its_queue_gives_its_row_a_verdict(
    kafka_broker: KafkaBroker, database: Engine
) -> None:
    [message_id] = submit(database)
    send(kafka_broker, message_id)
    fail_three_times(database)
    assert_dead(ACTOR)
    kafka_broker.dead_letter_queue.redrive(
        "moderation", dry_run=False, reason="a test", message_id=message_id
    )
    drain()
    found = read(database, message_id)
    assert (found.status, found.generation, found.error_message) == ("completed", 1, None)


@pytest.mark.parametrize("item_id", ["1", None, True, 1.5, 0, -1, 2**63, [1], {"a": 1}], ids=repr)
def test_an_item_id_that_is_none_is_a_dead_letter_without_a_row(
    kafka_broker: KafkaBroker, database: Engine, item_id: object
) -> None:
    kafka_broker.enqueue(
        dramatiq.Message(
            queue_name="moderation", actor_name="moderate_item", args=(item_id,), kwargs={}, options={}
        )
    )
    drain(raise_errors=False)
    assert "item_id must be an integer" in assert_dead(ACTOR).error
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(0,)]


@pytest.mark.parametrize(
    ("message_id", "options"),
    [
        (random.Random(1).randbytes(5_000).hex(), {}),  # too long for an index, and does not compress
        ("nul\x00", {}),
        ("surrogate\udcff", {}),
        ("redriven far too often", {"redrives": 2**40}),
        ("redriven never", {"redrives": "no"}),
    ],
    ids=lambda value: str(value)[:20].encode("ascii", "replace").decode(),
)
@pytest.mark.parametrize("item_id", [1, 99])
def test_a_message_that_postgresql_can_hardly_hold_does_not_hold_up_the_queue(
    kafka_broker: KafkaBroker, database: Engine, message_id: str, options: dict[str, object], item_id: int
) -> None:
    kafka_broker.enqueue(
        dramatiq.Message(
            queue_name="moderation",
            actor_name="moderate_item",
            args=(item_id,),
            kwargs={},
            options=options,
            message_id=message_id,
        )
    )
    drain(raise_errors=False)
    after = str(uuid4())
    send(kafka_broker, after)
    drain()
    assert read(database, after).status == "completed"
