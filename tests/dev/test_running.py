"""`python -m dev`, which is what `make run` runs: really started, stopped, killed and started again."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg2
import pytest

from dev.child import Child
from dev.ports import free_port
from dev.stack import ROOT
from tests.waiting import wait_until

START_DEADLINE_S = 90
STOP_DEADLINE_S = 60
SERVING = "Ctrl-C stops everything"


@dataclass
class Dev:
    """Where one newcomer's runs live: ports and a directory that outlast each of them."""

    home: Path
    postgres_port: int
    kafka_port: int
    api_port: int
    console_port: int
    runs: int = 0

    @property
    def database_url(self) -> str:
        return f"postgresql://user@localhost:{self.postgres_port}/moderation"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def run(self, **variables: str) -> Child:
        self.runs += 1
        child = Child(
            "python -m dev",
            [sys.executable, "-m", "dev"],
            log=self.home / f"run-{self.runs}.log",
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": self.database_url,
                "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{self.kafka_port}",
                "API_PORT": str(self.api_port),
                "CONSOLE_PORT": str(self.console_port),
                "DEV_DIR": str(self.home),
                **variables,
            },
        )
        child.start()
        return child

    def processes(self) -> list[psutil.Process]:
        """Whatever a run of ours has started and is still there; the environment tells."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def process(self, command: str) -> psutil.Process:
        """The first process whose command line holds `command`."""
        return next(one for one in self.processes() if command in command_of(one))

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("DEV_DIR") == str(self.home)
        except psutil.Error:
            return False


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def text(run: Child) -> str:
    return run.log.read_text(encoding="utf-8")


def wait_until_serving(run: Child) -> None:
    def serves() -> bool:
        run.check()
        return SERVING in text(run)

    wait_until(serves, deadline_s=START_DEADLINE_S, what="the table and the URLs")


@pytest.fixture(scope="module")
def dev(request: pytest.FixtureRequest, server_home: Callable[[], Path]) -> Iterator[Dev]:
    if request.config.getoption("--stack") == "real":
        pytest.skip(
            "python -m dev has the embedded servers whatever the tests run on: run with --stack=embedded"
        )
    newcomer = Dev(server_home(), *(free_port() for _ in range(4)))
    yield newcomer
    for process in newcomer.processes():
        process.kill()


@pytest.fixture(scope="module")
def first_run(dev: Dev) -> Child:
    """A run that served, and was then stopped with Ctrl-C while a task waited and Kafka had its message."""
    run = dev.run()
    wait_until_serving(run)
    assert httpx.post(f"{dev.api_url}/async_predict", params={"item_id": 13}).is_success
    connection = psycopg2.connect(dev.database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO moderation_results (item_id, publish_after) VALUES (14, NULL)")
    connection.close()
    os.kill(run.pid, signal.SIGINT)
    run.wait(STOP_DEADLINE_S)
    return run


@pytest.fixture(scope="module")
def second_run(dev: Dev, first_run: Child) -> Iterator[Child]:
    run = dev.run()
    wait_until_serving(run)
    yield run
    run.stop()


def test_a_dozen_ads_get_verdicts_in_a_table(first_run: Child) -> None:
    rows = re.findall(r"^ +\d+ +\d+ .+ (violation|fine) +[01]\.\d\d$", text(first_run), re.MULTILINE)
    assert len(rows) == 12


def test_the_urls_and_a_line_to_try_are_printed(dev: Dev, first_run: Child) -> None:
    assert f"Serving  {dev.api_url}" in text(first_run)
    assert f"curl -X POST '{dev.api_url}/async_predict?item_id=13'" in text(first_run)
    assert "KEY=" not in text(first_run)


def test_what_goes_into_a_pipe_is_plain(first_run: Child) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text(first_run))


def test_ctrl_c_is_a_good_end(first_run: Child) -> None:
    assert first_run.exit_code == 0
    assert "Traceback" not in text(first_run)


def test_ctrl_c_leaves_no_process(dev: Dev, first_run: Child) -> None:
    assert dev.processes() == []


def test_a_second_run_finishes_what_waited(dev: Dev, second_run: Child) -> None:
    assert re.search(r"still waited and are published again: [12]$", text(second_run), re.MULTILINE)
    newest = 14  # twelve of the table, one over HTTP, one by hand

    def status() -> bool:
        return bool(httpx.get(f"{dev.api_url}/moderation_result/{newest}").json()["status"] == "completed")

    wait_until(status, deadline_s=30, what="the task of the first run")


def test_a_second_run_still_has_the_first_ones_verdicts(dev: Dev, second_run: Child) -> None:
    first_verdict = httpx.get(f"{dev.api_url}/moderation_result/1").json()
    assert first_verdict["status"] == "completed"


def test_the_web_console_answers_where_it_is_printed(dev: Dev, second_run: Child) -> None:
    assert f"Web console  http://127.0.0.1:{dev.console_port}/" in text(second_run)
    assert f"'http://127.0.0.1:{dev.console_port}/'" in httpx.get(f"{dev.api_url}/").text
    password = re.search(r"^  Log in as admin with the password (\S+)$", text(second_run), re.MULTILINE)
    assert password
    url = f"http://127.0.0.1:{dev.console_port}"
    with httpx.Client(base_url=url, headers={"Origin": url}) as client:
        form = {"user": "admin", "password": password[1]}
        assert client.post("/log-in", data=form).status_code == 303

        def queues() -> list[str]:
            document = client.get("/", headers={"Accept": "application/json"}).json()
            return [row["queue"] for row in document["queues"]]

        wait_until(queues, deadline_s=60, what="the first reading")
        assert "moderation" in queues()


def test_sigterm_stops_everything_and_leaves_no_process(dev: Dev, second_run: Child) -> None:
    os.kill(second_run.pid, signal.SIGTERM)
    assert second_run.wait(STOP_DEADLINE_S) == 0
    assert dev.processes() == []


@pytest.mark.parametrize(
    ("victim", "name"),
    [
        ("dramatiq tasks", "the worker"),
        ("main.py", "the API"),
        ("broker.console", "the web console"),
        ("tansu", "Kafka"),
        ("postgres -D", "PostgreSQL"),
    ],
)
def test_a_childs_death_stops_the_rest_and_shows_its_last_lines(
    victim: str, name: str, dev: Dev, first_run: Child
) -> None:
    run = dev.run()

    def is_there() -> bool:
        run.check()
        return "300 sample ads" in text(run) and any(victim in command_of(one) for one in dev.processes())

    wait_until(is_there, deadline_s=START_DEADLINE_S, what=f"{victim} among the processes")
    dev.process(victim).kill()
    assert run.wait(START_DEADLINE_S) == 1
    assert re.search(rf"Cannot run: {name}.* ended with exit code -9. Its last lines:\n.+", text(run))
    assert dev.processes() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_nothing_is_left_when_it_is_killed_outright(dev: Dev, first_run: Child) -> None:
    run = dev.run()
    wait_until_serving(run)
    os.kill(run.pid, signal.SIGKILL)
    wait_until(lambda: not dev.processes(), deadline_s=STOP_DEADLINE_S, what="the end of every process")


def test_the_lines_to_try_have_a_key_where_keys_are_on(dev: Dev, first_run: Child) -> None:
    run = dev.run(API_KEYS="on")
    wait_until_serving(run)
    try:
        key = re.search(r"^  KEY=(mod_\S+)$", text(run), re.MULTILINE)
        assert key
        lines = re.findall(r"^  curl .+", text(run), re.MULTILINE)
        assert len(lines) == 2
        for line in lines:
            words = shlex.split(line.replace("$KEY", key[1]))
            header, value = words[words.index("-H") + 1].split(": ")
            method = "POST" if "-X" in words else "GET"
            answer = httpx.request(method, words[-1], headers={header: value})
            assert answer.is_success, answer.text
        assert httpx.get(words[-1]).status_code == 401
    finally:
        run.stop()


@pytest.mark.parametrize(
    ("port", "variable"),
    [
        ("postgres_port", "DATABASE_URL=postgresql://user@localhost:"),
        ("kafka_port", "KAFKA_BOOTSTRAP_SERVERS=localhost:"),
        ("api_port", "API_PORT="),
    ],
)
def test_a_port_in_use_is_one_sentence_with_the_variable_to_change(
    port: str, variable: str, dev: Dev
) -> None:
    number = getattr(dev, port)
    with socket.create_server(("127.0.0.1", number)):
        run = dev.run()
        assert run.wait(START_DEADLINE_S) == 1
    (line,) = text(run).split("\n")[1:-1]
    assert f"port {number}" in line
    assert variable in line


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "postgresql://user@db.example.com:5432/moderation"),
        ("DATABASE_URL", "postgresql://somebody@localhost:5433/moderation"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka-1.example.com:9092,kafka-2.example.com:9092"),
    ],
)
def test_servers_that_are_somebody_elses_are_refused(variable: str, value: str, dev: Dev) -> None:
    run = dev.run(**{variable: value})
    assert run.wait(START_DEADLINE_S) == 1
    assert f"{variable} must look like" in text(run)
    assert "Traceback" not in text(run)
