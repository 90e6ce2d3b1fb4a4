"""No statement reads a whole table that grows. ``python -m bench.plans`` looks at ten million rows."""

import os

import pytest
from sqlalchemy import Engine, text

from bench import plans
from tests.db.rows import execute

ROWS = int(os.environ.get("PLAN_ROWS", "20000"))


def test_every_function_that_executes_statements_is_looked_at() -> None:
    missing = plans.functions() - set(plans.CALLS) - plans.EXEMPT
    assert not missing, f"say in CALLS of bench/plans.py how to call {', '.join(sorted(missing))}"


def test_every_statement_reads_growing_tables_by_an_index(database: Engine) -> None:
    plans.load(database, ROWS)
    found = [plan for name in plans.CALLS for plan in plans.plans(database, name)]
    assert {plan.function for plan in found} == set(plans.CALLS)
    for plan in found:
        assert not plan.whole, f"{plan.function} reads all of {plan.whole}: {plan.statement}"


def test_a_statement_that_reads_a_whole_table_is_noticed(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans.load(database, ROWS)
    greedy = text("SELECT count(*) FROM moderation_results WHERE probability > 0.5")
    monkeypatch.setitem(plans.CALLS, "greedy", lambda connection: connection.execute(greedy))
    [plan] = plans.plans(database, "greedy")
    assert plan.whole == ["moderation_results"]


def test_explaining_changes_nothing(database: Engine) -> None:
    plans.load(database, 1000)
    before = execute(database, "SELECT sum(hashtext(t::text)) FROM moderation_results AS t")
    for name in plans.CALLS:
        list(plans.plans(database, name))
    assert execute(database, "SELECT sum(hashtext(t::text)) FROM moderation_results AS t") == before
