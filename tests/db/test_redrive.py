"""Redriving a failed submission: pending again in the next generation, and its failure stays readable."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from db import history, outbox, redrive, submissions
from db.engine import transaction
from db.history import PastOutcome
from db.outbox import Unpublished
from db.submissions import Outcome
from tests.db.rows import execute, load_sample_ads, submission_of, submit
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def ads(database: Engine) -> None:
    load_sample_ads(database, 3)


def fail(engine: Engine, message_id: str, *, generation: int = 0, error: str = "no such ad") -> set[str]:
    with transaction(engine) as connection:
        return submissions.write_outcomes(
            connection, [Outcome(message_id, generation, 1, error_message=error)]
        )


def complete(engine: Engine, message_id: str, *, generation: int) -> set[str]:
    with transaction(engine) as connection:
        return submissions.write_outcomes(connection, [Outcome(message_id, generation, 1, True, 0.75)])


def redrive_all(engine: Engine, *task_ids: int, reason: str = "the ad is back") -> list[int]:
    with transaction(engine) as connection:
        return redrive.redrive(connection, task_ids, by="ann@host", reason=reason)


def history_of(engine: Engine, task_id: int) -> list[PastOutcome]:
    with transaction(engine) as connection:
        return history.read_history(connection, [task_id]).get(task_id, [])


def test_a_redriven_failure_is_pending_in_the_next_generation_and_due_to_be_sent(database: Engine) -> None:
    [message_id] = submit(database)
    fail(database, message_id)
    assert redrive_all(database, 1) == [1]
    found = submission_of(database, message_id)
    assert found is not None
    assert (found.status, found.generation, found.error_message, found.processed_at) == (
        "pending",
        1,
        None,
        None,
    )
    with transaction(database) as connection:
        due = outbox.claim_due(connection, limit=10, lease_s=30)
    assert due == [Unpublished(message_id, 1, 1)]


def test_the_history_says_what_a_generation_came_to_who_redrove_it_and_why(database: Engine) -> None:
    [message_id] = submit(database)
    fail(database, message_id)
    failed = submission_of(database, message_id)
    assert failed is not None
    redrive_all(database, 1)
    [past] = history_of(database, 1)
    assert (past.generation, past.status, past.error_message) == (0, "failed", "no such ad")
    assert past.processed_at == failed.processed_at
    assert (past.redriven_by, past.reason) == ("ann@host", "the ad is back")
    assert datetime.now(UTC) - past.replaced_at < timedelta(minutes=1)


def test_a_submission_that_was_never_redriven_has_no_history(database: Engine) -> None:
    [message_id] = submit(database)
    fail(database, message_id)
    fail(database, message_id, error="the same, delivered twice")
    assert history_of(database, 1) == []


def test_a_late_failure_of_the_old_generation_changes_neither_the_row_nor_its_history(
    database: Engine,
) -> None:
    [message_id] = submit(database)
    fail(database, message_id)
    redrive_all(database, 1)
    assert fail(database, message_id, generation=0, error="late") == set()
    assert complete(database, message_id, generation=1) == {message_id}
    found = submission_of(database, message_id)
    assert found is not None
    assert (found.status, found.generation) == ("completed", 1)
    assert [past.error_message for past in history_of(database, 1)] == ["no such ad"]


def test_every_generation_stays_readable_oldest_first(database: Engine) -> None:
    [message_id] = submit(database)
    for generation in range(3):
        fail(database, message_id, generation=generation, error=f"failure {generation}")
        redrive_all(database, 1, reason=f"reason {generation}")
    assert [(past.generation, past.error_message, past.reason) for past in history_of(database, 1)] == [
        (number, f"failure {number}", f"reason {number}") for number in range(3)
    ]


def test_an_outcome_that_a_dead_letter_put_back_by_itself_replaces_is_kept_too(database: Engine) -> None:
    [message_id] = submit(database)
    fail(database, message_id)
    complete(database, message_id, generation=1)  # of a redrive that PostgreSQL was not told of
    [past] = history_of(database, 1)
    assert (past.generation, past.status, past.redriven_by, past.reason) == (0, "failed", None, None)


@pytest.mark.parametrize("status", ["pending", "completed", "absent"])
def test_only_what_failed_is_redriven(database: Engine, status: str) -> None:
    [message_id] = submit(database)
    if status == "completed":
        complete(database, message_id, generation=0)
    before = submission_of(database, message_id)
    assert redrive_all(database, 99 if status == "absent" else 1) == []
    assert submission_of(database, message_id) == before


def test_redriving_twice_has_one_effect(database: Engine) -> None:
    [message_id] = submit(database)
    fail(database, message_id)
    assert redrive_all(database, 1, 1) == [1]
    assert redrive_all(database, 1, reason="again") == []
    assert [past.reason for past in history_of(database, 1)] == ["the ad is back"]


def test_two_redrives_at_the_same_moment_have_one_effect(database: Engine) -> None:
    [message_id] = submit(database)
    fail(database, message_id)
    second: list[list[int]] = []
    with transaction(database) as connection:
        assert redrive.redrive(connection, [1], by="ann", reason="first") == [1]
        other = threading.Thread(target=lambda: second.append(redrive_all(database, 1, reason="second")))
        other.start()
        wait_until(
            lambda: execute(database, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
            deadline_s=60,
            what="the second redrive to meet the first one's lock",
        )
    other.join(60)
    assert second == [[]]
    found = submission_of(database, message_id)
    assert found is not None
    assert found.generation == 1


def test_failed_submissions_are_read_page_by_page_and_by_when_they_failed(database: Engine) -> None:
    message_ids = submit(database, [1, 2, 3, 1])
    for message_id in message_ids[:3]:
        fail(database, message_id)
    execute(database, "UPDATE moderation_results SET processed_at = '2026-01-02T00:00Z' WHERE id = 2")

    def ids(**chosen: object) -> list[int]:
        with transaction(database) as connection:
            return [one.task_id for one in redrive.read_failed(connection, limit=2, **chosen)]  # type: ignore[arg-type]

    assert ids() == [1, 2]
    assert ids(after=2) == [3]
    assert ids(task_ids=[3, 4, 99]) == [3]
    assert ids(until=datetime(2026, 1, 3, tzinfo=UTC)) == [2]
    assert ids(since=datetime(2026, 1, 3, tzinfo=UTC)) == [1, 3]


def test_history_goes_with_its_submission(database: Engine) -> None:
    [message_id] = submit(database)
    fail(database, message_id)
    redrive_all(database, 1)
    execute(database, "DELETE FROM moderation_results")
    assert history_of(database, 1) == []


def test_any_text_of_who_and_why_can_be_kept(database: Engine) -> None:
    [message_id] = submit(database)
    fail(database, message_id)
    redrive_all(database, 1, reason="nul \x00 and a lone \udcff surrogate")
    assert history_of(database, 1)[0].reason == "nul \\x00 and a lone \\udcff surrogate"


def test_generations_are_read_by_message_id(database: Engine) -> None:
    first, second = submit(database, [1, 2])
    fail(database, first)
    redrive_all(database, 1)
    with transaction(database) as connection:
        assert redrive.read_generations(connection, [first, second, "a\x00b"]) == {first: 1, second: 0}
