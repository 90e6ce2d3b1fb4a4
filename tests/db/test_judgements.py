"""How a verdict was reached is kept once a generation, beside the verdict."""

from dataclasses import replace

from sqlalchemy import Engine

from db.engine import transaction
from db.judgements import Judgement, read_judgement, write_verdicts
from db.submissions import Outcome
from tests.db.rows import load_sample_ads, submit

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
