"""The outbox at work: whoever dies, what was accepted is published; and no more often than needed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from db.engine import make_engine
from dev.ports import HOST, free_port
from dev.postgres import PostgresServer
from dev.server import Server
from tests.db.rows import execute, load_sample_ads, submit
from tests.service import Api, Worker
from tests.tasks.conftest import broker_in
from tests.tasks.waits import wait_for_line, wait_for_outcome
from tests.waiting import wait_until

StartWorker = Callable[..., Worker]

#: Longer than any test: who has claimed a row sends it, however slow the machine is.
ENDLESS_LEASE_S = "3600"


@pytest.mark.usefixtures("worker")
def test_what_its_inserter_never_sent_a_workers_relay_publishes(shared_database: Engine) -> None:
    message_ids = submit(
        shared_database, [1, 2, 3], lease_s=0
    )  # as if the inserter had died after its commit
    for message_id in message_ids:
        assert wait_for_outcome(shared_database, message_id).status == "completed"


@pytest.mark.usefixtures("worker")
def test_a_row_inserted_with_sql_is_moderated(shared_database: Engine) -> None:
    [(message_id,)] = execute(
        shared_database, "INSERT INTO moderation_results (item_id) VALUES (3) RETURNING message_id"
    )
    assert wait_for_outcome(shared_database, str(message_id)).status == "completed"


def test_relays_side_by_side_send_each_submission_once(
    start_worker: StartWorker, env: dict[str, str], own_database: Engine
) -> None:
    worker = start_worker(processes=2, PUBLISH_LEASE_S=ENDLESS_LEASE_S)
    count = 300
    submit(own_database, [1, 2, 3] * (count // 3), lease_s=0)
    wait_until(
        lambda: (
            execute(own_database, "SELECT count(*) FROM moderation_results WHERE status = 'completed'")
            == [(count,)]
        ),
        deadline_s=60,
        what=f"{count} verdicts",
    )
    worker.child.stop(60)  # with it, its relays: what they have claimed is sent
    assert records_in(env) == count


def test_what_its_inserter_is_sending_no_relay_sends_too(
    server_home: Callable[[], Path], start_worker: StartWorker, env: dict[str, str], own_database: Engine
) -> None:
    worker = start_worker(RELAY_INTERVAL_S="0.001")
    api = Api(server_home(), {**env, "PUBLISH_LEASE_S": ENDLESS_LEASE_S})
    api.start()
    count = 200
    try:
        with api.client() as client, ThreadPoolExecutor(8) as threads:
            posts = [threads.submit(client.post, "/async_predict?item_id=1") for _ in range(count)]
            assert {post.result().status_code for post in posts} == {200}
        wait_until(
            lambda: (
                execute(own_database, "SELECT count(*) FROM moderation_results WHERE status = 'completed'")
                == [(count,)]
            ),
            deadline_s=90,
            what=f"{count} verdicts",
        )
    finally:
        api.child.stop(60)
    worker.child.stop(60)  # with it, its relay
    assert records_in(env) == count


def test_while_kafka_is_away_the_api_accepts_and_afterwards_everything_is_moderated(
    server_home: Callable[[], Path],
    env: dict[str, str],
    kafka_server: Server,
    start_worker: StartWorker,
    own_database: Engine,
) -> None:
    env["KAFKA_BOOTSTRAP_SERVERS"] = kafka_server.address
    kafka_server.kill()
    api = Api(server_home(), env)
    api.start()
    try:
        with api.client() as client:
            for item_id in (1, 2, 3):
                assert client.post(f"/async_predict?item_id={item_id}").status_code == 200
            wait_until(  # the model may still be loading
                lambda: list(client.get("/readyz").json()["missing"]) == ["kafka"],
                deadline_s=60,
                what="Kafka alone to be missing",
            )
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            kafka_server.start()
            start_worker()
            wait_until(
                lambda: all(
                    client.get(f"/moderation_result/{task_id}").json()["status"] == "completed"
                    for task_id in (1, 2, 3)
                ),
                deadline_s=90,
                what="the verdicts of what was accepted meanwhile",
            )
            wait_until(
                lambda: client.get("/readyz").json() == {"status": "ready", "missing": {}},
                deadline_s=60,
                what="the API to find nothing missing",
            )
    finally:
        api.child.kill()


def test_an_api_killed_right_after_it_accepted_loses_nothing(
    server_home: Callable[[], Path], env: dict[str, str], start_worker: StartWorker, own_database: Engine
) -> None:
    # No Kafka at this address: what this API accepts it cannot send.
    nobody = f"{HOST}:{free_port()}"
    api = Api(server_home(), {**env, "KAFKA_BOOTSTRAP_SERVERS": nobody, "PUBLISH_LEASE_S": "15"})
    api.start()
    with api.client() as client:
        assert client.post("/async_predict?item_id=1").status_code == 200
    api.child.kill()
    start_worker()
    wait_until(
        lambda: execute(own_database, "SELECT status FROM moderation_results") == [("completed",)],
        deadline_s=60,
        what="the verdict of what a dead API accepted",
    )


def test_a_relay_survives_postgresql_and_says_so_in_one_line_each_way(
    postgres_server: PostgresServer, start_worker: StartWorker, env: dict[str, str]
) -> None:
    url = postgres_server.url("moderation")
    engine = make_engine(url)
    load_sample_ads(engine, 3)
    worker = start_worker(DATABASE_URL=url)
    postgres_server.kill()
    wait_for_line(worker, "PostgreSQL cannot be used")
    postgres_server.start()
    wait_for_line(worker, "PostgreSQL can be used again")
    [message_id] = submit(engine, lease_s=0)
    assert wait_for_outcome(engine, message_id).status == "completed"
    assert worker.child.tail(1000).count("PostgreSQL cannot be used") == 1
    engine.dispose()


def test_what_postgresql_will_never_note_keeps_nothing_else_from_being_published(
    server_home: Callable[[], Path], env: dict[str, str], own_database: Engine
) -> None:
    execute(
        own_database,
        "ALTER TABLE moderation_results ADD CHECK (item_id <> 1 OR publish_after IS NOT NULL) NOT VALID",
    )
    api = Api(server_home(), env)
    api.start()
    try:
        with api.client() as client:
            assert client.post("/async_predict?item_id=1").status_code == 200
        wait_until(
            lambda: "The outbox failed" in api.child.tail(1000), deadline_s=60, what="the note to be refused"
        )
        execute(own_database, "INSERT INTO moderation_results (item_id) VALUES (2)")
        wait_until(
            lambda: (
                execute(own_database, "SELECT publish_after FROM moderation_results WHERE item_id = 2")
                == [(None,)]
            ),
            deadline_s=60,
            what="the other row to be published and noted",
        )
    finally:
        api.child.kill()


def records_in(env: dict[str, str]) -> int:
    """How many records the queue's topic was given: all of them wait for a group that reads none."""
    with closing(broker_in(env, group_id=f"{env['KAFKA_GROUP_ID']}-of-nobody")) as broker:
        return broker.count("moderation")
