"""The numbers of submissions that metrics show."""

import pytest
from sqlalchemy import Engine

from db import judgements
from db.engine import transaction
from db.judgements import Judgement
from db.statistics import LATEST, read_statistics
from db.submissions import Outcome
from db.timing import kind_of, observe_statements
from tests.db.rows import execute, load_sample_ads, submit


def test_an_empty_table_has_zeros(database: Engine) -> None:
    with transaction(database) as connection:
        found = read_statistics(connection)
    assert (found.unpublished, found.oldest_unpublished_s, found.oldest_pending_s) == (0, 0.0, 0.0)
    assert (found.latest, found.mean_probability) == ({}, None)


def test_the_latest_submissions_are_counted_by_status_and_decision(database: Engine) -> None:
    load_sample_ads(database, 3)
    ids = submit(database, [1, 2, 3])
    outcomes = [
        Outcome(i, 0, 1, is_violation=p > 0.5, probability=p) for i, p in zip(ids, (0.2, 0.6), strict=False)
    ]
    judged = [
        Judgement(ids[0], 0, "v1", 0.5, 0.3, 0.7, "approve"),
        Judgement(ids[1], 0, "v1", 0.5, 0.3, 0.7, "review"),
    ]
    with transaction(database) as connection:
        judgements.write_verdicts(connection, outcomes, judged)
        found = read_statistics(connection)
    assert found.latest == {("completed", "approve"): 1, ("completed", "review"): 1, ("pending", ""): 1}
    assert found.mean_probability == pytest.approx(0.4)
    assert found.unpublished == 1


def test_only_the_latest_are_counted(database: Engine) -> None:
    load_sample_ads(database, 1)
    submit(database, [1] * (LATEST + 5))
    execute(database, "UPDATE moderation_results SET publish_after = NULL")
    with transaction(database) as connection:
        assert sum(read_statistics(connection).latest.values()) == LATEST


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SELECT 1", "select"),
        ("WITH due AS (SELECT id FROM t FOR UPDATE) UPDATE t SET a = 1", "update"),
        ("insert into t values (1)", "insert"),
        ("DELETE FROM t", "delete"),
    ],
)
def test_the_kind_of_a_statement_is_what_it_does_first(statement: str, kind: str) -> None:
    assert kind_of(statement) == kind


def test_each_statement_is_measured_while_somebody_measures(database: Engine) -> None:
    seen: list[str] = []
    observe_statements(lambda kind, duration_s: seen.append(kind) if duration_s >= 0 else None)
    try:
        execute(database, "SELECT 1")
        with pytest.raises(Exception, match="no_such_table"):
            execute(database, "DELETE FROM no_such_table")
    finally:
        observe_statements(None)
    execute(database, "SELECT 2")
    assert seen == ["select", "delete"]
