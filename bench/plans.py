"""The execution plans of all statements of db/ on large tables: ``python -m bench.plans``.

For each statement: the access to each table, the number of pages of 8 kB, and the duration. A statement that
reads a whole growing table is named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from db import (
    api_keys,
    audit,
    cancelling,
    history,
    idempotency,
    items,
    judgements,
    listing,
    outbox,
    outcome_notifications,
    redrive,
    statistics,
    submissions,
    verification,
)
from db.engine import make_engine
from db.locks import BRIEFLY
from dev.ports import free_port
from dev.stack import migrate, system_postgres
from scoring import Ad

GROWING = {
    "users",
    "items",
    "moderation_results",
    "submission_history",
    "judgements",
    "idempotency_keys",
    "ad_versions",
    "verification_changes",
    "api_key_usage",
    "audit_log",
}
#: The statements of every function of these modules that takes a connection are explained.
MODULES: tuple[ModuleType, ...] = (
    api_keys,
    audit,
    cancelling,
    history,
    idempotency,
    items,
    judgements,
    listing,
    outbox,
    outcome_notifications,
    redrive,
    statistics,
    submissions,
    verification,
)
#: Reads the whole table, as documented: for the embedded stack alone.
EXEMPT = {"outbox.publish_pending_again"}
#: The timeout of one statement: ten million rows with their indexes take minutes.
LOAD_TIMEOUT_S = 3600.0
AD = Ad(1, 1, True, "a bicycle", "as good as new", 19, 3)
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_CHANGE = verification.VerificationChange(1, 77, _LONG_AGO, _LONG_AGO, 0)

#: The call of each function on the loaded tables.
CALLS: dict[str, Callable[[Connection], object]] = {
    "api_keys.insert_key": lambda c: api_keys.insert_key(
        c, api_keys.NewKey("bench", "bench", bytes(32), ["read"], "bench")
    ),
    "api_keys.revoke_key": lambda c: api_keys.revoke_key(c, "bench", by="bench", reason="bench"),
    "api_keys.read_keys": lambda c: api_keys.read_keys(c),
    "api_keys.read_used": lambda c: api_keys.read_used(c),
    "audit.record": lambda c: audit.record(c, audit.Change("cancel", "key 1", 1, task_ids=[1])),
    "audit.read_entries": lambda c: (
        audit.read_entries(c, limit=50),
        audit.read_entries(c, key_id="key 1", limit=50),
    ),
    "audit.read_entries_of_item": lambda c: audit.read_entries_of_item(c, 77, limit=50),
    "audit.read_entries_of_task": lambda c: audit.read_entries_of_task(c, 77, limit=50),
    "cancelling.cancel": lambda c: (cancelling.cancel(c, 1), cancelling.cancel(c, 1, client_id=1)),
    "idempotency.lock_free": lambda c: idempotency.lock_free(c, ["key 1", "key 2"]),
    "idempotency.read": lambda c: idempotency.read(c, ["key 1", "key 2"]),
    "idempotency.remember": lambda c: idempotency.remember(
        c, [idempotency.Remembered("key 1", b"print", (1, None))], ttl_s=60
    ),
    "idempotency.forget_expired": lambda c: idempotency.forget_expired(c, limit=100),
    "judgements.write_verdicts": lambda c: judgements.write_verdicts(
        c,
        [submissions.Outcome(f"m{number}", 1, 1, is_violation=True, probability=0.5) for number in range(5)],
        [judgements.Judgement(f"m{number}", 1, "model", 0.5, 0.5, 0.5, "approve") for number in range(5)],
    ),
    "judgements.write_unlocked_verdicts": lambda c: [
        judgements.write_unlocked_verdicts(
            c,
            [
                submissions.Outcome(f"m{number}", 1, 1, is_violation=True, probability=0.5)
                for number in range(count)
            ],
            [
                judgements.Judgement(f"m{number}", 1, "model", 0.5, 0.5, 0.5, "approve")
                for number in range(count)
            ],
        )
        for count in (1, 5)
    ],
    "judgements.read_judgement": lambda c: judgements.read_judgement(c, 77),
    "listing.read_page": lambda c: (
        listing.read_page(c, limit=50),
        listing.read_page(c, limit=50, before=900, status="failed"),
        listing.read_page(c, limit=50, item_id=77),
        listing.read_page(c, limit=50, client_id=3),
        listing.read_page(c, limit=50, before=900, item_id=77, client_id=3),
    ),
    "history.read_history": lambda c: history.read_history(c, [100, 200, 300]),
    "items.read_ads": lambda c: items.read_ads(c, [1, 2, 77]),
    "items.read_versions": lambda c: items.read_versions(c, 77),
    "items.load_ads": lambda c: items.load_ads(c, [AD]),
    "outcome_notifications.with_outcome": lambda c: outcome_notifications.with_outcome(c, [1, 2, 77]),
    "outbox.claim_due": lambda c: outbox.claim_due(c, limit=500, lease_s=30),
    "outbox.mark_published": lambda c: outbox.mark_published(
        c, [outbox.Unpublished(f"m{number}", 0, 1) for number in range(5)]
    ),
    "outbox.count_younger": lambda c: outbox.count_younger(c, than_s=60),
    "outbox.publish_again": lambda c: outbox.publish_again(c, [1, 2, 3]),
    "outbox.read_published": lambda c: outbox.read_published(
        c, task_ids=[1, 2, 3], older_than_s=60, limit=500
    ),
    "outbox.release": lambda c: outbox.release(
        c, [outbox.Unpublished(f"m{number}", 0, 1) for number in range(5)]
    ),
    "redrive.read_failed": lambda c: (
        redrive.read_failed(c, task_ids=[100, 200, 5], limit=500),
        redrive.read_failed(c, after=500, since=datetime(2020, 1, 1, tzinfo=UTC), limit=500),
    ),
    "redrive.redrive": lambda c: redrive.redrive(c, [100, 200], by="bench", reason="bench"),
    "redrive.read_generations": lambda c: redrive.read_generations(c, ["m1", "m2", "nobody's"]),
    "submissions.insert_pending": lambda c: submissions.insert_pending(
        c,
        [submissions.NewSubmission(str(uuid.uuid4()), item_id, 3, "key 1") for item_id in (1, 2, 77)],
        lease_s=30,
    ),
    "submissions.write_outcomes": lambda c: submissions.write_outcomes(
        c,
        [submissions.Outcome(f"m{number}", 0, 1, is_violation=True, probability=0.5) for number in range(5)],
    ),
    "statistics.read_statistics": lambda c: statistics.read_statistics(c),
    "submissions.read_by_task_ids": lambda c: submissions.read_by_task_ids(c, [1, 2, 77]),
    "submissions.read_by_message_id": lambda c: submissions.read_by_message_id(c, "m77"),
    "verification.claim_changes": lambda c: verification.claim_changes(c, limit=100, lease_s=30),
    "verification.check_ads": lambda c: verification.check_ads(c, [_CHANGE], limit=200),
    "verification.finish": lambda c: verification.finish(
        c, [_CHANGE], verification.Checked((_CHANGE.change_id,), None, (1, 2))
    ),
}

#: One row in a hundred failed, one in five was redriven before, one in a thousand must be sent.
_LOAD = (
    "INSERT INTO users (id, is_verified_seller)"
    " SELECT n, n % 3 = 0 FROM generate_series(1, greatest(:rows / 10, 10)) AS n",
    "INSERT INTO items (id, seller_id, name, description, category, images_qty)"
    " SELECT n, 1 + n % greatest(:rows / 10, 10), 'ad ' || n, repeat('as good as new ', 5), n % 101, n % 11"
    " FROM generate_series(1, greatest(:rows / 2, 100)) AS n",
    "INSERT INTO moderation_results (item_id, message_id, status, is_violation, probability, error_message,"
    "  processed_at, publish_after)"
    " SELECT 1 + n % greatest(:rows / 2, 100), 'm' || n,"
    "  CASE WHEN n % 100 = 0 THEN 'failed' WHEN n % 1000 = 1 THEN 'pending' ELSE 'completed' END,"
    "  CASE WHEN n % 100 <> 0 AND n % 1000 <> 1 THEN n % 7 = 0 END,"
    "  CASE WHEN n % 100 <> 0 AND n % 1000 <> 1 THEN 0.5 END,"
    "  CASE WHEN n % 100 = 0 THEN 'no such ad' END,"
    "  CASE WHEN n % 1000 <> 1 THEN now() END,"
    "  CASE WHEN n % 1000 = 1 THEN now() + make_interval(hours => :lease_hours) END"
    " FROM generate_series(1, :rows) AS n",
    "INSERT INTO submission_history (task_id, generation, status, error_message)"
    " SELECT n, 0, 'failed', 'no such ad' FROM generate_series(0, :rows - 1, 5) AS n WHERE n > 0",
    "INSERT INTO judgements"
    "  (message_id, generation, model_version, threshold, approve_below, reject_from, decision)"
    " SELECT 'm' || n, 0, 'model', 0.5, 0.5, 0.5, 'approve' FROM generate_series(1, :rows, 2) AS n",
    "INSERT INTO idempotency_keys (key, fingerprint, task_ids, expires_at)"
    " SELECT 'key ' || n, 'print', ARRAY[n], now() + (n - :rows / 10) * interval '1 second'"
    " FROM generate_series(1, :rows / 5) AS n",
)
#: Of tables that an earlier schema does not have, which bench.migrations loads.
_LOAD_LATER = {
    "ad_versions": "INSERT INTO ad_versions"
    "  (item_id, digest, seller_id, name, description, category, images_qty)"
    " SELECT n, 'digest', 1, 'ad', 'as good as new', 1, 1 FROM generate_series(1, :rows, 10) AS n",
    "verification_changes": "INSERT INTO verification_changes (seller_id, due_at)"
    " SELECT n, now() + make_interval(hours => :lease_hours) FROM generate_series(1, :rows / 10) AS n",
    # One submission in a hundred is of a client.
    "api_keys": "UPDATE moderation_results SET client_id = 1 + id % 7 WHERE id % 100 = 3",
    "api_key_usage": "INSERT INTO api_key_usage (day, key_id, used, granted)"
    " SELECT CAST(now() AS date) - n % 100, 'key ' || n / 100, n, 1 FROM generate_series(1, :rows / 10) AS n",
    "audit_log": "INSERT INTO audit_log (at, action, key_id, task_ids, item_ids)"
    " SELECT now() - n * interval '1 second', CASE n % 3 WHEN 0 THEN 'submit' WHEN 1 THEN 'cancel' ELSE"
    "  'store_ads' END, 'key ' || n % 7, CASE WHEN n % 3 < 2 THEN ARRAY[n] END,"
    "  CASE WHEN n % 3 = 2 THEN ARRAY[n] END"
    " FROM generate_series(1, :rows / 5) AS n",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The execution plan of one statement.

    Attributes:
      reads: The access to each table: ("items", "Index Scan").
      pages: The number of pages; 0 when the statement was only planned.
      seconds: The duration; 0.0 when the statement was only planned.
    """

    function: str
    statement: str
    reads: list[tuple[str, str]]
    pages: int = 0
    seconds: float = 0.0

    @property
    def whole(self) -> list[str]:
        """The growing tables that the statement reads completely."""
        return [table for table, how in self.reads if table in GROWING and how == "Seq Scan"]


def functions() -> set[str]:
    """Every function of db/ that executes statements, as ``module.function``."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in MODULES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
        if "connection" in inspect.signature(function).parameters
    }


def load(engine: Engine, rows: int, *, lease_hours: int = 1) -> None:
    """Fill empty tables: ``rows`` submissions, half as many ads, a tenth as many sellers.

    Parameters:
      lease_hours: The time in which no relay sends pending submissions.
    """
    with engine.begin() as connection:
        there = text("SELECT to_regclass(:name) IS NOT NULL")
        later = [sql for name, sql in _LOAD_LATER.items() if connection.scalar(there, {"name": name})]
    for statement in (*_LOAD, *later):
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(statement), {"rows": rows, "lease_hours": lease_hours})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("RESET statement_timeout"))


def plans(engine: Engine, function: str, *, run: bool = False) -> Iterator[Plan]:
    """Explain every statement that a function executes. All changes are rolled back.

    Parameters:
      run: Whether to execute the statements and count pages and time.
    """
    how = "EXPLAIN (FORMAT JSON, ANALYZE, BUFFERS)" if run else "EXPLAIN (FORMAT JSON)"
    for statement in _captured(engine, CALLS[function]):
        statement = statement.removeprefix(BRIEFLY)
        with engine.connect() as connection:
            [(found,)] = connection.exec_driver_sql(f"{how} {statement.replace('%', '%%')}")
        root = (json.loads(found) if isinstance(found, str) else found)[0]
        yield Plan(
            function,
            " ".join(statement.split()),
            sorted(set(_reads(root["Plan"]))),
            root["Plan"].get("Shared Hit Blocks", 0) + root["Plan"].get("Shared Read Blocks", 0),
            root.get("Execution Time", 0.0) / 1000,
        )


def _captured(engine: Engine, call: Callable[[Connection], object]) -> list[str]:
    """The statements of a call with their values, as the server receives them."""
    statements: list[str] = []

    def note(_: Any, cursor: Any, statement: str, parameters: Any, __: Any, executemany: bool) -> None:
        values = parameters[0] if executemany else parameters
        statements.append(cursor.mogrify(statement, values).decode())

    event.listen(engine, "before_cursor_execute", note)
    try:
        with engine.connect() as connection:
            call(connection)
            connection.rollback()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return statements


def _reads(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "Relation Name" in node and "Scan" in node["Node Type"]:
        yield node["Relation Name"], node["Node Type"]
    for child in node.get("Plans", []):
        yield from _reads(child)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.plans", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=10_000_000, help="submissions; 10,000,000 by default")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-plans-"))
    home.chmod(0o755)
    server = system_postgres(
        home / "postgres", port=free_port(), options={"fsync": "off", "max_wal_size": "8GB"}
    )
    try:
        server.start()
        url = server.ensure_database("plans")
        migrate(url)
        engine = make_engine(url, statement_timeout_s=LOAD_TIMEOUT_S)
        print(f"loading {given.rows:,} submissions ...", flush=True)
        load(engine, given.rows, lease_hours=0)
        found = [plan for name in sorted(CALLS) for plan in plans(engine, name, run=True)]
        engine.dispose()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)
    for plan in found:
        reads = ", ".join(f"{table}: {how}" for table, how in plan.reads)
        print(f"{plan.function:32} {plan.pages:7,} pages {plan.seconds * 1000:8.2f} ms  {reads}")
    wrong = [plan for plan in found if plan.whole]
    for plan in wrong:
        print(f"{plan.function} reads all of {', '.join(plan.whole)}: {plan.statement}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
