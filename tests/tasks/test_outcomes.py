"""What becomes of a submission: a verdict, once; or, when nothing helps, a dead letter and an error."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import dramatiq
import pytest
from sqlalchemy import Engine

from broker import KafkaBroker
from db.outbox import Unpublished
from submissions.message import message_of
from tests.db.rows import execute, submission_of, submit
from tests.service import Worker
from tests.tasks.waits import (
    dead_letters_of,
    wait_for_dead_letter,
    wait_for_outcome,
    wait_until_all_done,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("worker")


def send(kafka: KafkaBroker, message_id: str, item_id: int = 1) -> None:
    kafka.enqueue(message_of(Unpublished(message_id, 0, item_id)))


@contextmanager
def ads_away(engine: Engine) -> Iterator[None]:
    """For a while PostgreSQL has no table of ads: a temporary error for whoever reads one."""
    execute(engine, "ALTER TABLE items RENAME TO items_away")
    try:
        yield
    finally:
        execute(engine, "ALTER TABLE items_away RENAME TO items")


def test_a_submitted_ad_gets_its_verdict(kafka: KafkaBroker, database: Engine) -> None:
    [message_id] = submit(database, [2])
    send(kafka, message_id, 2)
    found = wait_for_outcome(database, message_id)
    assert found.status == "completed"
    assert found.probability is not None
    assert 0 <= found.probability <= 1
    assert found.is_violation is not None
    assert found.processed_at is not None
    assert dead_letters_of(kafka, message_id) == []


def test_a_missing_ad_fails_and_goes_to_the_dead_letters_at_once(
    kafka: KafkaBroker, database: Engine
) -> None:
    [message_id] = submit(database, [2])
    execute(database, "DELETE FROM items WHERE id = 2")
    send(kafka, message_id, 2)
    letter = wait_for_dead_letter(kafka, message_id)
    assert (letter.error_type, letter.retry_count) == ("PermanentError", 0)
    found = wait_for_outcome(database, message_id)
    assert (found.status, found.error_message) == ("failed", "There is no ad with item_id 2")


def test_a_temporary_error_leaves_the_row_pending_until_an_attempt_succeeds(
    kafka: KafkaBroker, database: Engine, worker: Worker
) -> None:
    [message_id] = submit(database)
    with ads_away(database):
        failures = worker.child.tail(100_000).count("SchemaMissing")
        send(kafka, message_id)
        wait_until(
            lambda: worker.child.tail(100_000).count("SchemaMissing") > failures,
            deadline_s=60,
            what="attempt 1 to fail",
        )
        found = submission_of(database, message_id)
        assert found is not None
        assert found.status == "pending"
    assert wait_for_outcome(database, message_id).status == "completed"
    assert dead_letters_of(kafka, message_id) == []


def test_after_three_attempts_a_temporary_error_is_a_dead_letter_and_the_row_fails(
    kafka: KafkaBroker, database: Engine
) -> None:
    [message_id] = submit(database)
    with ads_away(database):
        send(kafka, message_id)
        found = wait_for_outcome(database, message_id)
    assert found.status == "failed"
    assert found.error_message is not None
    assert "migrations" in found.error_message
    letter = wait_for_dead_letter(kafka, message_id)
    assert (letter.error_type, letter.retry_count) == ("SchemaMissing", 2)


def test_a_second_delivery_changes_nothing(kafka: KafkaBroker, database: Engine) -> None:
    [message_id] = submit(database)
    for _ in range(5):
        send(kafka, message_id)
    first = wait_for_outcome(database, message_id)
    wait_until_all_done(kafka)
    assert submission_of(database, message_id) == first
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(1,)]


def test_the_late_twin_of_a_finished_task_cannot_fail_it(kafka: KafkaBroker, database: Engine) -> None:
    [message_id] = submit(database)
    send(kafka, message_id)
    first = wait_for_outcome(database, message_id)
    execute(database, "DELETE FROM items WHERE id = 1")
    send(kafka, message_id)
    wait_for_dead_letter(kafka, message_id)
    wait_until_all_done(kafka)
    assert submission_of(database, message_id) == first


def test_a_dead_letter_put_back_on_its_queue_gives_its_row_a_verdict(
    kafka: KafkaBroker, database: Engine
) -> None:
    [message_id] = submit(database)
    with ads_away(database):
        send(kafka, message_id)
        wait_for_outcome(database, message_id)
        wait_for_dead_letter(kafka, message_id)
    kafka.dead_letter_queue.redrive("moderation", dry_run=False, reason="a test", message_id=message_id)
    found = wait_until(
        lambda: (
            found if (found := submission_of(database, message_id)) and found.status == "completed" else None
        ),
        deadline_s=60,
        what="the verdict of the redrive",
    )
    assert (found.generation, found.error_message) == (1, None)


@pytest.mark.parametrize("item_id", ["1", None, True, 1.5, 0, -1, 2**31, [1], {"a": 1}], ids=repr)
def test_an_item_id_that_is_none_is_a_dead_letter_without_a_row(
    kafka: KafkaBroker, database: Engine, item_id: object
) -> None:
    message = kafka.enqueue(
        dramatiq.Message(
            queue_name="moderation", actor_name="moderate_item", args=(item_id,), kwargs={}, options={}
        )
    )
    assert "item_id must be an integer" in wait_for_dead_letter(kafka, message.message_id).error
    wait_until_all_done(kafka)
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
    kafka: KafkaBroker, database: Engine, message_id: str, options: dict[str, object], item_id: int
) -> None:
    kafka.enqueue(
        dramatiq.Message(
            queue_name="moderation",
            actor_name="moderate_item",
            args=(item_id,),
            kwargs={},
            options=options,
            message_id=message_id,
        )
    )
    wait_until_all_done(kafka)
    after = str(uuid4())
    send(kafka, after)
    assert wait_for_outcome(database, after).status == "completed"
