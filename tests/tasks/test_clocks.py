"""A worker whose clock is wrong harms nobody's submissions."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dev.child import Child
from dev.stack import ROOT
from tests.db.rows import execute, submit
from tests.service import Api
from tests.waiting import wait_until

DAY_S = 86_400
REFUSED = "Submissions are accepted and wait"
#: Longer than any test: a row that a process keeps is published by no other.
ENDLESS_LEASE_S = "3600"


@pytest.mark.real_kafka(reason="it takes records from the future")
def test_a_worker_a_day_ahead_cannot_publish_and_leaves_its_rows_to_others(
    env: dict[str, str], own_database: Engine, server_home: Callable[[], Path], tmp_path: Path
) -> None:
    lasting = {**env, "PUBLISH_LEASE_S": ENDLESS_LEASE_S}
    ahead_s = tmp_path / "ahead_s"
    ahead_s.write_text(str(DAY_S))
    worker = Child(
        "the worker a day ahead",
        [
            *(sys.executable, "-m", "tests.broker.delays.shifted_clock", str(ahead_s)),
            *("dramatiq", "tasks", "--processes", "1", "--threads", "2"),
        ],
        log=server_home() / "worker.log",
        env=lasting,
        cwd=ROOT,
    )
    api = Api(server_home(), lasting)
    submit(own_database, [1, 2, 3] * 400, lease_s=0)
    try:
        worker.start()
        wait_until(
            lambda: REFUSED in worker.tail(500),
            deadline_s=90,
            what="Kafka to refuse the records of the worker",
        )
        api.start()
        unpublished = "SELECT count(*) FROM moderation_results WHERE publish_after IS NOT NULL"
        wait_until(
            lambda: execute(own_database, unpublished) == [(0,)],
            deadline_s=90,
            what="the API to publish every submission",
        )
    finally:
        worker.kill()
        api.child.kill()
