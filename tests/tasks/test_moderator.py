"""A batch of ads: one SELECT, one scoring, one write; and what one of them runs into, the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, event

from broker import PermanentError
from db import submissions
from db.engine import transaction
from db.errors import (
    DatabaseAway,
    DatabaseBusy,
    DatabaseRefused,
    DatabaseUnavailable,
    RowLocked,
    TransactionLost,
)
from db.submissions import Outcome
from scoring import Ad, Model, Verdict
from tasks.database_gate import DatabaseGate
from tasks.moderator import Job, Moderator, NothingTaken
from tests.db.rows import execute, load_sample_ads, submission_of, submit
from tests.waiting import wait_until


class Switch:
    """Stands for the broker."""

    consumption_paused = False


class Scorer(Model):
    """A model that counts its batches and cannot score the ad ``bad``."""

    def __init__(self, bad: int = 0) -> None:
        super().__init__(None, version="counting", threshold=0.5)
        self.batches: list[int] = []
        self._bad = bad

    def score(self, ads: Sequence[Ad]) -> list[Verdict]:
        self.batches.append(len(ads))
        if any(ad.item_id == self._bad for ad in ads):
            raise ValueError("this ad breaks the model")
        return [Verdict(ad.item_id % 2 == 0, ad.item_id / 100) for ad in ads]


class Trouble:
    """Gives connections, or, for the next so many times, an error unless it is None; the last comes first."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.errors: list[DatabaseUnavailable | None] = []

    @contextmanager
    def __call__(self) -> Iterator[Connection]:
        if self.errors and (error := self.errors.pop()) is not None:
            raise error
        with transaction(self.engine) as connection:
            yield connection


@pytest.fixture
def trouble(database: Engine) -> Trouble:
    load_sample_ads(database, 9)
    return Trouble(database)


def moderator_on(database: Trouble, scorer: Scorer | None = None) -> tuple[Moderator, DatabaseGate]:
    def ping() -> None:
        with database():
            return

    gate = DatabaseGate(Switch(), ping)  # type: ignore[arg-type]
    gate.start()
    model = scorer or Scorer()
    return Moderator(database, lambda: model, gate), gate


def jobs_for(engine: Engine, item_ids: Sequence[int]) -> list[Job]:
    message_ids = submit(engine, item_ids)
    return [Job(item_id, message_id) for item_id, message_id in zip(item_ids, message_ids, strict=True)]


def statuses(engine: Engine) -> Counter[Any]:
    return Counter(status for (status,) in execute(engine, "SELECT status FROM moderation_results"))


def test_a_batch_is_one_select_one_scoring_and_one_write(trouble: Trouble) -> None:
    statements: list[str] = []
    jobs = jobs_for(trouble.engine, [1, 2, 3, 4, 2])
    scorer = Scorer()
    moderator, _ = moderator_on(trouble, scorer)

    def note(*args: Any) -> None:
        statements.append(args[2])

    event.listen(trouble.engine, "before_cursor_execute", note)
    try:
        answers = moderator.moderate(jobs)
    finally:
        event.remove(trouble.engine, "before_cursor_execute", note)
    assert answers == [Verdict(job.item_id % 2 == 0, job.item_id / 100) for job in jobs]
    assert len(statements) == 2  # the ads; the verdicts with how they were reached
    assert scorer.batches == [4]
    assert statuses(trouble.engine) == {"completed": 5}


def test_a_missing_ad_fails_alone(trouble: Trouble) -> None:
    jobs = [*jobs_for(trouble.engine, [1, 2]), Job(77, str(uuid4()))]
    moderator, _ = moderator_on(trouble)
    first, second, missing = moderator.moderate(jobs)
    assert isinstance(first, Verdict)
    assert isinstance(second, Verdict)
    assert isinstance(missing, PermanentError)
    assert statuses(trouble.engine) == {"completed": 2}


def test_an_ad_that_the_model_cannot_score_fails_alone(trouble: Trouble) -> None:
    jobs = jobs_for(trouble.engine, [1, 2, 3])
    moderator, _ = moderator_on(trouble, Scorer(bad=2))
    answers = moderator.moderate(jobs)
    assert [type(answer) for answer in answers] == [Verdict, ValueError, Verdict]
    assert statuses(trouble.engine) == {"completed": 2, "pending": 1}


def test_a_message_that_postgresql_refuses_fails_alone(trouble: Trouble) -> None:
    too_long = "".join(str(uuid4()) for _ in range(2000))
    jobs = [*jobs_for(trouble.engine, [1, 2]), Job(3, too_long), Job(4, "nul \x00, surrogate \udcff")]
    moderator, _ = moderator_on(trouble)
    answers = moderator.moderate(jobs)
    assert [type(answer) for answer in answers] == [Verdict, Verdict, DatabaseRefused, Verdict]
    assert statuses(trouble.engine) == {"completed": 3}
    assert submission_of(trouble.engine, "nul \x00, surrogate \udcff") is not None


def test_a_message_delivered_twice_in_one_batch_has_one_verdict(trouble: Trouble) -> None:
    [job] = jobs_for(trouble.engine, [1])
    moderator, _ = moderator_on(trouble)
    first, second = moderator.moderate([job, job])
    assert first == second
    assert statuses(trouble.engine) == {"completed": 1}


def test_of_two_generations_in_one_batch_the_newer_one_is_written(trouble: Trouble) -> None:
    [job] = jobs_for(trouble.engine, [1])
    assert job.message_id is not None
    for jobs in ([Job(1, job.message_id, 1), job], [job, Job(1, job.message_id, 2)]):
        moderator, _ = moderator_on(trouble)
        assert all(isinstance(answer, Verdict) for answer in moderator.moderate(jobs))
        found = submission_of(trouble.engine, job.message_id)
        assert found is not None
        assert found.generation == max(one.generation for one in jobs)


LOCKS = {
    "its row": "SELECT FROM moderation_results WHERE message_id = '{}' FOR UPDATE",
    "its judgement": "SELECT FROM judgements WHERE message_id = '{}' FOR UPDATE",
}


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_a_job_whose_row_is_locked_is_left_out_and_holds_up_no_other(trouble: Trouble, lock: str) -> None:
    jobs = jobs_for(trouble.engine, [1, 2, 3, 4])
    moderator, gate = moderator_on(trouble)
    moderator.moderate([jobs[1]])  # an older judgement, which can be locked
    execute(
        trouble.engine,
        "UPDATE moderation_results SET status = 'pending', generation = 1, is_violation = NULL,"
        " probability = NULL WHERE message_id = :message_id",
        message_id=jobs[1].message_id,
    )
    jobs[1] = replace(jobs[1], generation=1)
    with trouble.engine.connect() as somebody:
        somebody.exec_driver_sql(lock.format(jobs[1].message_id))
        answers = moderator.moderate(jobs)
        assert [type(answer) for answer in answers] == [Verdict, RowLocked, Verdict, Verdict]
        assert [type(answer) for answer in moderator.moderate([jobs[1]])] == [RowLocked]
        assert statuses(trouble.engine) == {"completed": 3, "pending": 1}
        somebody.rollback()
    assert not gate.is_closed
    assert [type(answer) for answer in moderator.moderate([jobs[1]])] == [Verdict]
    assert statuses(trouble.engine) == {"completed": 4}


def test_a_message_whose_row_is_not_committed_yet_holds_up_no_other(trouble: Trouble) -> None:
    jobs = [*jobs_for(trouble.engine, [1, 2]), Job(3, "new")]
    moderator, _ = moderator_on(trouble)
    with trouble.engine.connect() as somebody:
        somebody.exec_driver_sql("INSERT INTO moderation_results (item_id, message_id) VALUES (3, 'new')")
        answers = moderator.moderate(jobs)
        assert [type(answer) for answer in answers] == [Verdict, Verdict, RowLocked]
        somebody.rollback()
    assert [type(answer) for answer in moderator.moderate(jobs)] == [Verdict] * 3


@pytest.mark.parametrize("item_ids", [[1, 2, 3], [1]], ids=["a batch", "one job"])
@pytest.mark.parametrize(
    "error", [DatabaseAway("the connection broke"), DatabaseBusy("canceled"), TransactionLost("a deadlock")]
)
def test_an_outage_that_is_over_at_the_ping_costs_nobody_an_attempt(
    trouble: Trouble, item_ids: list[int], error: DatabaseUnavailable
) -> None:
    jobs = jobs_for(trouble.engine, item_ids)
    moderator, gate = moderator_on(trouble)
    trouble.errors = [error]
    assert all(isinstance(answer, Verdict) for answer in moderator.moderate(jobs))
    assert not gate.is_closed


def test_a_job_that_fails_by_itself_while_postgresql_answers_gets_its_error(trouble: Trouble) -> None:
    [job] = jobs_for(trouble.engine, [1])
    moderator, gate = moderator_on(trouble)
    # From the last: the batch; no error at the ping; the job by itself; no error at the ping.
    trouble.errors = [None, DatabaseBusy("canceled"), None, DatabaseBusy("canceled")]
    [answer] = moderator.moderate([job])
    assert type(answer) is DatabaseBusy
    assert not gate.is_closed


def test_postgresql_away_closes_the_gate_until_it_answers_and_fails_nobody_for_good(
    trouble: Trouble,
) -> None:
    jobs = jobs_for(trouble.engine, [1, 2, 3])
    moderator, gate = moderator_on(trouble)
    trouble.errors = [DatabaseAway("refused") for _ in range(3)]  # the batch, the ping, the first question
    assert [type(answer) for answer in moderator.moderate(jobs)] == [NothingTaken] * 3
    assert gate.is_closed
    assert len(trouble.errors) == 1
    assert [type(answer) for answer in moderator.moderate(jobs)] == [NothingTaken] * 3  # without asking
    assert len(trouble.errors) == 1
    wait_until(lambda: not gate.is_closed, deadline_s=60, what="the gate to open")
    assert all(isinstance(answer, Verdict) for answer in moderator.moderate(jobs))


def test_outside_a_worker_the_gate_stays_open(trouble: Trouble) -> None:
    moderator, gate = moderator_on(trouble)
    gate.stop()
    trouble.errors = [DatabaseAway("refused") for _ in range(3)]
    [answer] = moderator.moderate([Job(1)])
    assert type(answer) is DatabaseAway  # an attempt like any other
    assert not gate.is_closed


def test_a_row_with_an_outcome_keeps_it(trouble: Trouble) -> None:
    jobs = jobs_for(trouble.engine, [1, 2])
    assert jobs[0].message_id is not None
    with transaction(trouble.engine) as connection:
        submissions.write_outcomes(connection, [Outcome(jobs[0].message_id, 0, 1, error_message="gone")])
    moderator, _ = moderator_on(trouble)
    moderator.moderate(jobs)
    assert statuses(trouble.engine) == {"failed": 1, "completed": 1}
