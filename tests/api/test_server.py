"""The process: it finishes what it began, and says in a sentence why it cannot start."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from dev.child import ChildDied
from dev.ports import HOST, is_listening
from dev.stack import Stack
from tests.api.test_long_polling import LISTENING
from tests.db.rows import execute, load_sample_ads, submit
from tests.service import Api
from tests.waiting import wait_until

StartApi = Callable[..., Api]


@pytest.fixture
def start_api(
    stack: Stack, server_home: Callable[[], Path], namespace: str, database: Engine
) -> Iterator[StartApi]:
    """Starts API processes over a database with the ads 1, 2 and 3; what still runs at the end is killed."""
    load_sample_ads(database, 3)
    started = []

    def start(**env: str) -> Api:
        api = Api(server_home(), {**stack.env(), "KAFKA_NAMESPACE": namespace, **env})
        started.append(api)
        api.start()
        return api

    yield start
    for api in started:
        api.child.kill()


def test_a_port_in_use_is_one_sentence_naming_the_port_and_the_variable(start_api: StartApi) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ChildDied) as died:
            start_api(API_PORT=str(port))
    _, _, said = str(died.value).partition("last lines:\n")
    assert said == f"Port {port} on {HOST} is in use: set API_PORT to a free one"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("API_WORKERS", "none"),
        ("API_PORT", "70000"),
        ("DATABASE_URL", "mysql://user@host/moderation"),
        ("KAFKA_CLIENT_OPTIONS", "{"),
        ("KAFKA_CLIENT_OPTIONS", "[]"),
    ],
)
def test_a_variable_that_cannot_be_used_is_one_sentence_naming_it(
    start_api: StartApi, variable: str, value: str
) -> None:
    with pytest.raises(ChildDied) as died:
        start_api(**{variable: value})
    _, _, said = str(died.value).partition("last lines:\n")
    assert variable in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_requests_in_flight_are_answered_before_a_stopped_api_ends(
    start_api: StartApi, database: Engine, workers: str
) -> None:
    api = start_api(API_WORKERS=workers, API_SHUTDOWN_TIMEOUT_S="60")
    answers: list[httpx.Response] = []

    def ask() -> None:
        with api.client() as client:
            answers.append(client.post("/async_predict?item_id=1"))

    asking = threading.Thread(target=ask)
    with database.begin() as lock:
        lock.exec_driver_sql("LOCK TABLE moderation_results IN ACCESS EXCLUSIVE MODE")
        asking.start()
        wait_until(
            lambda: execute(
                database,
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT%'",
            ),
            deadline_s=60,
            what="the request to be in flight",
        )
        api.child.ask_to_stop()
        wait_until(lambda: not is_listening(api.port), deadline_s=60, what="the API to stop listening")
    asking.join(60)
    assert [answer.status_code for answer in answers] == [200]
    assert api.child.wait(60) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_of_a_load_that_a_stop_meets_exactly_what_was_answered_is_accepted(
    start_api: StartApi, database: Engine, workers: str
) -> None:
    api = start_api(API_WORKERS=workers, API_SHUTDOWN_TIMEOUT_S="60")
    accepted: list[int] = []

    def submit_until_nobody_answers() -> None:
        with api.client() as client, suppress(httpx.TransportError):
            while True:
                response = client.post("/async_predict?item_id=1")
                assert response.status_code == 200
                accepted.append(response.json()["task_id"])

    with ThreadPoolExecutor(16) as threads:
        clients = [threads.submit(submit_until_nobody_answers) for _ in range(16)]
        wait_until(lambda: len(accepted) > 200, deadline_s=120, what="the load to run")
        api.child.ask_to_stop()
        assert api.child.wait(60) == 0
    for client in clients:
        client.result()
    rows = execute(database, "SELECT id FROM moderation_results ORDER BY id")
    assert [task_id for (task_id,) in rows] == sorted(accepted)
    # What is not in Kafka yet is due, or will be when its lease runs out.
    lost = "SELECT count(*) FROM moderation_results WHERE publish_after > now() + interval '1 minute'"
    assert execute(database, lost) == [(0,)]


def test_who_waits_for_an_outcome_is_answered_when_the_api_stops(
    start_api: StartApi, database: Engine
) -> None:
    submit(database)
    others = set(execute(database, LISTENING))  # the API that the other tests share may listen here, too
    api = start_api(API_SHUTDOWN_TIMEOUT_S="60")
    with api.client() as client, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.get, "/moderation_result/1?wait=10")
        wait_until(
            lambda: set(execute(database, LISTENING)) - others,
            deadline_s=60,
            what="the request to wait",
        )
        api.child.ask_to_stop()
        assert api.child.wait(60) == 0
        response = waiting.result()
    assert (response.status_code, response.json()["status"]) == (200, "pending")


def test_an_idle_connection_does_not_hold_up_a_stop(start_api: StartApi) -> None:
    api = start_api(API_SHUTDOWN_TIMEOUT_S="60")
    with api.client() as client:
        assert client.get("/livez").status_code == 200  # and stays connected
        api.child.ask_to_stop()
        assert api.child.wait(60) == 0


def test_what_a_stopped_api_accepted_is_in_kafka_or_due(start_api: StartApi, database: Engine) -> None:
    api = start_api()
    with api.client() as client:
        for _ in range(20):
            client.post("/async_predict?item_id=1")
    api.child.stop(60)
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(20,)]
    assert execute(database, "SELECT count(*) FROM moderation_results WHERE publish_after IS NOT NULL") == [
        (0,)
    ]


def test_several_processes_share_the_port(start_api: StartApi, database: Engine) -> None:
    submit(database)
    api = start_api(API_WORKERS="2")
    for _ in range(20):
        with api.client() as client:
            assert client.get("/moderation_result/1").json()["status"] == "pending"
    api.child.stop(60)
    assert api.child.exit_code == 0
