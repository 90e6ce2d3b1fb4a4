"""A statement that waits for locks only for a moment does so for a locked table as for a locked row."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine

from db.cancelling import cancel
from db.engine import transaction
from db.errors import RowLocked
from db.idempotency import lock_free, read
from db.items import load_ads
from db.judgements import Judgement, write_unlocked_verdicts
from db.submissions import Outcome, write_outcomes
from tests.db.rows import load_sample_ads, submit
from training.sample_ads import sample_ads

OUTCOME = Outcome("another", 0, 1, is_violation=True, probability=0.5)
JUDGEMENT = Judgement("another", 0, "model", 0.5, 0.5, 0.5, "approve")


def look_up_key(connection: Connection) -> object:
    lock_free(connection, ["key"])
    return read(connection, ["key"])


STATEMENTS: list[tuple[str, str, Callable[[Connection], object]]] = [
    ("users", "SHARE", lambda connection: load_ads(connection, sample_ads(2, seed=2))),
    ("items", "SHARE", lambda connection: load_ads(connection, sample_ads(2, seed=2))),
    ("moderation_results", "SHARE", lambda connection: cancel(connection, 1)),
    ("moderation_results", "SHARE", lambda connection: write_outcomes(connection, [OUTCOME], briefly=True)),
    ("judgements", "SHARE", lambda connection: write_unlocked_verdicts(connection, [OUTCOME], [JUDGEMENT])),
    ("idempotency_keys", "ACCESS EXCLUSIVE", look_up_key),
]


@pytest.mark.parametrize(
    ("table", "mode", "statement"),
    STATEMENTS,
    ids=["sellers", "ads", "cancel", "outcomes", "verdicts", "keys"],
)
def test_a_locked_table_is_waited_for_as_briefly_as_a_row(
    database: Engine, table: str, mode: str, statement: Callable[[Connection], object]
) -> None:
    load_sample_ads(database, 2)
    submit(database, [1])
    with database.connect() as somebody:
        somebody.exec_driver_sql(f"LOCK TABLE {table} IN {mode} MODE")
        with pytest.raises(RowLocked), transaction(database) as connection:
            statement(connection)
        somebody.rollback()
    with transaction(database) as connection:
        statement(connection)


def test_the_limit_also_holds_for_a_statement_that_is_committed_by_itself(database: Engine) -> None:
    load_sample_ads(database, 1)
    submit(database, [1])
    statements = database.execution_options(isolation_level="AUTOCOMMIT")
    with database.connect() as somebody:
        somebody.exec_driver_sql("LOCK TABLE moderation_results IN SHARE MODE")
        with pytest.raises(RowLocked), transaction(statements) as connection:
            cancel(connection, 1)
        somebody.rollback()
    with transaction(statements) as connection:
        assert cancel(connection, 1)
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "0"
