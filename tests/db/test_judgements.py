"""How a verdict was reached is kept once a generation, beside the verdict."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Engine

from db.engine import autocommitting, transaction
from db.judgements import Judgement, read_judgement, write_unlocked_verdicts, write_verdicts
from db.outcome_notifications import CHANNEL
from db.submissions import Outcome, write_outcomes
from tests.db.rows import execute, load_sample_ads, submit

PLAIN = Judgement("", 0, "text-1+abc", 0.5, 0.08, 0.92, "review")


def judged(engine: Engine, message_id: str, generation: int = 0) -> Judgement:
    return replace(PLAIN, message_id=message_id, generation=generation)


def write(engine: Engine, *rows: Judgement) -> None:
    with transaction(engine) as connection:
        outcomes = [Outcome(row.message_id, row.generation, 1, False, 0.3) for row in rows]
        write_verdicts(connection, outcomes, rows)


def read(engine: Engine, task_id: int) -> Judgement | None:
    with transaction(engine) as connection:
        return read_judgement(connection, task_id)


def test_what_was_written_is_read_with_and_without_a_shadow(database: Engine) -> None:
    load_sample_ads(database, 1)
    first, second = submit(database, [1, 1])
    shadowed = replace(
        judged(database, second),
        shadow_version="text-2+def",
        shadow_is_violation=True,
        shadow_probability=0.7,
        shadow_decision="reject",
    )
    write(database, judged(database, first), shadowed)
    assert read(database, 1) == judged(database, first)
    assert read(database, 2) == shadowed


def test_a_submission_without_a_verdict_has_no_judgement(database: Engine) -> None:
    load_sample_ads(database, 1)
    submit(database, [1])
    assert read(database, 1) is None
    assert read(database, 99) is None


def test_a_later_generation_replaces_an_earlier_one_and_not_the_other_way_round(database: Engine) -> None:
    load_sample_ads(database, 1)
    [message_id] = submit(database, [1])
    newer = replace(judged(database, message_id, generation=1), decision="reject")
    write(database, judged(database, message_id))
    write(database, newer)
    write(database, judged(database, message_id))
    assert read(database, 1) == newer


def as_it_is(engine: Engine, message_id: str) -> None: ...


def redriven(engine: Engine, message_id: str) -> None:
    execute(
        engine,
        "UPDATE moderation_results SET generation = 1, publish_after = now() WHERE message_id = :message_id",
        message_id=message_id,
    )


def failed(engine: Engine, message_id: str) -> None:
    with transaction(engine) as connection:
        write_outcomes(connection, [Outcome(message_id, 0, 1, error_message="because")])


def judged_before(engine: Engine, message_id: str) -> None:
    write(engine, judged(engine, message_id))


def cancelled(engine: Engine, message_id: str) -> None:
    execute(
        engine,
        "UPDATE moderation_results SET status = 'cancelled', processed_at = now()"
        " WHERE message_id = :message_id",
        message_id=message_id,
    )


def without_row(engine: Engine, message_id: str) -> None:
    execute(engine, "DELETE FROM moderation_results WHERE message_id = :message_id", message_id=message_id)


State = Callable[[Engine, str], None]
STATES: list[tuple[State, int, bool]] = [
    (as_it_is, 0, True),
    (as_it_is, 1, True),
    (redriven, 0, False),
    (redriven, 1, True),
    (failed, 0, False),
    (failed, 1, True),
    (judged_before, 0, False),
    (judged_before, 1, True),
    (cancelled, 0, False),
    (without_row, 0, True),
]


@pytest.mark.parametrize("companions", [0, 1, 3])
@pytest.mark.parametrize(
    ("state", "generation", "is_written"),
    STATES,
    ids=[f"{state.__name__}-{generation}" for state, generation, _ in STATES],
)
def test_a_verdict_is_written_alone_as_it_is_among_others(
    database: Engine, state: State, generation: int, is_written: bool, companions: int
) -> None:
    load_sample_ads(database, 1)
    message_id, *others = submit(database, [1] * (companions + 1))
    state(database, message_id)
    before = rows_of(database, message_id)
    judgement = replace(judged(database, message_id, generation), decision="reject", ad_hash="ab" * 32)
    batch = [judgement, *(judged(database, other) for other in others)]
    outcomes = [
        Outcome(one.message_id, one.generation, 1, is_violation=True, probability=0.7) for one in batch
    ]
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg2.connect(url)) as listener:
        listener.autocommit = True
        with listener.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
            with autocommitting(database).connect() as connection:
                written, locked = write_unlocked_verdicts(connection, outcomes, batch)
            cursor.execute("SELECT 1")
        told = {int(task_id) for one in listener.notifies for task_id in one.payload.split(",")}
    assert written == ({message_id} if is_written else set()) | set(others)
    assert locked == set()
    after = rows_of(database, message_id)
    ids = execute(database, "SELECT id FROM moderation_results WHERE message_id = ANY (:ids)", ids=[*written])
    assert told == {task_id for (task_id,) in ids}
    if not is_written:
        assert after == before
        return
    [(row, kept)] = after
    assert (row["generation"], row["status"], row["is_violation"], row["probability"]) == (
        *(generation, "completed", True, 0.7),
    )
    assert (row["error_message"], row["publish_after"]) == (None, None)
    assert row["processed_at"] is not None
    assert (kept["generation"], kept["decision"], kept["ad_hash"]) == (generation, "reject", "ab" * 32)
    assert kept["model_version"] == PLAIN.model_version


@pytest.mark.parametrize("companions", [0, 2])
def test_a_verdict_whose_row_is_locked_is_not_waited_for(database: Engine, companions: int) -> None:
    load_sample_ads(database, 1)
    message_id, *others = submit(database, [1] * (companions + 1))
    batch = [judged(database, one) for one in (message_id, *others)]
    outcomes = [Outcome(one.message_id, 0, 1, is_violation=True, probability=0.7) for one in batch]
    with database.connect() as somebody, autocommitting(database).connect() as connection:
        somebody.exec_driver_sql("SELECT 1 FROM moderation_results WHERE id = 1 FOR UPDATE")
        assert write_unlocked_verdicts(connection, outcomes, batch) == (set(others), {message_id})
        somebody.rollback()
        assert write_unlocked_verdicts(connection, outcomes, batch) == ({message_id}, set())


def test_a_judgement_with_every_field_is_written_alone(database: Engine) -> None:
    load_sample_ads(database, 1)
    [message_id] = submit(database, [1])
    judgement = replace(
        judged(database, message_id),
        shadow_version="text-2+def",
        shadow_is_violation=True,
        shadow_probability=0.7,
        shadow_decision="reject",
        ad_hash="ab" * 32,
    )
    outcome = Outcome(message_id, 0, 1, is_violation=False, probability=0.3)
    with autocommitting(database).connect() as connection:
        assert write_unlocked_verdicts(connection, [outcome], [judgement]) == ({message_id}, set())
    assert read(database, 1) == judgement


def rows_of(engine: Engine, message_id: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The row of a message with its judgement."""
    found: Any = execute(
        engine,
        "SELECT to_jsonb(row), to_jsonb(judgement) FROM moderation_results AS row"
        " LEFT JOIN judgements AS judgement USING (message_id) WHERE row.message_id = :message_id",
        message_id=message_id,
    )
    return [(row, judgement) for row, judgement in found]
