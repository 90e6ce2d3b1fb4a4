"""The API and a worker behind a PgBouncer, in session mode and in transaction mode."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from dev.stack import Stack
from tests.db.rows import load_sample_ads, submit
from tests.pgbouncer import PgBouncer
from tests.service import Api, Worker
from tests.waiting import wait_until

NOTHING_LISTENS = "The sessions of PostgreSQL are shared"
#: Longer than this test.
LEASE_S = 3_600.0


@pytest.mark.parametrize(("mode", "lines"), [("session", 0), ("transaction", 1)])
def test_verdicts_end_waits_behind_a_pooler(
    stack: Stack,
    server_home: Callable[[], Path],
    namespace: str,
    database: Engine,
    pgbouncer: Callable[..., PgBouncer],
    mode: str,
    lines: int,
) -> None:
    load_sample_ads(database, 3)
    submit(database, lease_s=LEASE_S)  # task 1: nobody sends it, so it stays pending
    pooler = pgbouncer(mode)
    env = {**stack.env(), "KAFKA_NAMESPACE": namespace, "DATABASE_URL": pooler.url}
    api = Api(server_home(), env)
    worker = Worker(server_home(), env, threads=2)
    try:
        api.start()
        worker.start()
        with api.client() as client, ThreadPoolExecutor(1) as thread:
            wait_until(
                lambda: client.get("/readyz").json() == {"status": "ready", "missing": {}},
                deadline_s=60,
                what="nothing to be missing",
            )
            # Topics and consumers are there after the first verdict.
            first = client.post("/async_predict?item_id=1").json()["task_id"]
            wait_until(lambda: status(client, first) == "completed", deadline_s=60, what="a first verdict")
            wait_until(
                lambda: is_answered_first(client, thread), deadline_s=60, what="a verdict that ends a wait"
            )
        assert api.child.log.read_text().count(NOTHING_LISTENS) == lines
        assert pooler.warnings == []
    finally:
        worker.child.kill()
        api.child.kill()


def status(client: httpx.Client, task_id: int) -> str:
    found: str = client.get(f"/moderation_result/{task_id}?wait=1").json()["status"]
    return found


def is_answered_first(client: httpx.Client, thread: ThreadPoolExecutor) -> bool:
    """Whether a new task is answered before a request that waits less long, for the pending task."""
    pending = thread.submit(client.get, "/moderation_result/1?wait=8")
    task_id = client.post("/async_predict?item_id=2").json()["task_id"]
    answer = client.get(f"/moderation_result/{task_id}?wait=10").json()
    was_first = not pending.done()
    assert pending.result().json()["status"] == "pending"
    return was_first and answer["status"] == "completed"
