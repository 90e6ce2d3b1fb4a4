"""Transactions that share rows: whatever order they were given, and whatever plan PostgreSQL chose, none of
them is ended as a deadlock."""

import threading
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Connection, Engine

from db import judgements, outbox, redrive, submissions
from db.engine import transaction
from db.errors import DatabaseError, TransactionLost
from db.judgements import Judgement
from db.outbox import Unpublished
from db.submissions import Outcome
from tests.db.rows import execute, load_sample_ads, submit
from tests.waiting import wait_until

ROWS = 60
ROUNDS = 5

#: What PostgreSQL may choose: it meets the rows in the order given, or in the order of the table.
PLANS = (
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off",
    "SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off",
)

Step = Callable[[Connection, Sequence[str]], object]


def write_verdicts(connection: Connection, message_ids: Sequence[str], generation: int = 0) -> object:
    outcomes = [Outcome(one, generation, 1, is_violation=True, probability=0.75) for one in message_ids]
    judged = [Judgement(one, generation, "model", 0.5, 0.5, 0.5, "reject") for one in message_ids]
    return judgements.write_verdicts(connection, outcomes, judged)


def write_verdicts_of_a_redrive(connection: Connection, message_ids: Sequence[str]) -> object:
    return write_verdicts(connection, message_ids, generation=1)


def mark_published(connection: Connection, message_ids: Sequence[str]) -> object:
    outbox.mark_published(connection, [Unpublished(one, 0, 1) for one in message_ids])
    return None


def fail_and_redrive(connection: Connection, message_ids: Sequence[str]) -> object:
    submissions.write_outcomes(connection, [Outcome(one, 0, 1, error_message="no") for one in message_ids])
    failed = [one.task_id for one in redrive.read_failed(connection, limit=2 * ROWS)]
    return redrive.redrive(connection, failed, by="me", reason="a test")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (write_verdicts, write_verdicts),
        (write_verdicts, write_verdicts_of_a_redrive),
        (write_verdicts, mark_published),
        (write_verdicts, fail_and_redrive),
        (mark_published, mark_published),
    ],
)
def test_opposite_orders_over_the_same_rows_are_no_deadlock(database: Engine, one: Step, other: Step) -> None:
    load_sample_ads(database)
    submit(database, [1] * 10 * ROWS)
    for _ in range(ROUNDS):
        message_ids = sorted(submit(database, [1] * ROWS))
        execute(database, "ANALYZE moderation_results")
        meet_half_way(database, message_ids, [(one, message_ids), (other, message_ids[::-1])])


def test_messages_without_a_row_are_no_deadlock_either(database: Engine) -> None:
    for number in range(5 * ROUNDS):
        message_ids = [f"{number}-{position}" for position in range(ROWS)]
        run_concurrently(database, [(write_verdicts, message_ids), (write_verdicts, message_ids[::-1])])


def test_a_deadlock_is_an_error_of_its_transaction_and_not_of_postgresql(database: Engine) -> None:
    load_sample_ads(database)
    first, second = sorted(submit(database, [1, 1]))
    lock = "SELECT FROM moderation_results WHERE message_id = '{}' FOR UPDATE"
    errors: list[DatabaseError] = []
    met = threading.Barrier(2, timeout=60)

    def lock_both(*message_ids: str) -> None:
        try:
            with transaction(database) as connection:
                connection.exec_driver_sql(lock.format(message_ids[0]))
                met.wait()
                connection.exec_driver_sql(lock.format(message_ids[1]))
        except DatabaseError as error:
            errors.append(error)

    threads = [threading.Thread(target=lock_both, args=order) for order in [(first, second), (second, first)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [type(error) for error in errors] == [TransactionLost]


def meet_half_way(
    database: Engine, message_ids: Sequence[str], steps: Sequence[tuple[Step, Sequence[str]]]
) -> None:
    """Run the steps side by side; a third transaction holds the row in the middle until they wait for it or
    are done, so that each has locked all that it locks before that row."""
    with transaction(database) as connection:
        connection.exec_driver_sql(
            f"SELECT FROM moderation_results WHERE message_id = '{message_ids[ROWS // 2]}' FOR UPDATE"
        )
        threads, errors = start(database, steps)
        wait_until(
            lambda: waiting_for_locks(database) + sum(not thread.is_alive() for thread in threads) == 2,
            deadline_s=60,
            what="both to wait for the row in the middle",
        )
    for thread in threads:
        thread.join(60)
    assert errors == []


def run_concurrently(database: Engine, steps: Sequence[tuple[Step, Sequence[str]]]) -> None:
    threads, errors = start(database, steps)
    for thread in threads:
        thread.join(60)
    assert errors == []


def start(
    database: Engine, steps: Sequence[tuple[Step, Sequence[str]]]
) -> tuple[list[threading.Thread], list[DatabaseError]]:
    errors: list[DatabaseError] = []
    met = threading.Barrier(len(steps), timeout=60)

    def run(step: Step, message_ids: Sequence[str], plan: str) -> None:
        try:
            with transaction(database) as connection:
                connection.exec_driver_sql(plan)
                met.wait()
                step(connection, message_ids)
        except DatabaseError as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(*step, plan)) for step, plan in zip(steps, PLANS, strict=True)
    ]
    for thread in threads:
        thread.start()
    return threads, errors


def waiting_for_locks(database: Engine) -> int:
    [(count,)] = execute(
        database,
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()",
    )
    assert isinstance(count, int)
    return count
