"""``from tasks import moderate_item`` in a bare interpreter, with the three variables set."""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from db import cancelling
from db.engine import transaction
from tests.db.rows import execute, submit

RunPython = Callable[[str], str]


@pytest.mark.usefixtures("worker")
def test_a_task_sent_from_plain_python_makes_its_own_row_and_gives_its_verdict(
    run_python: RunPython, shared_database: Engine
) -> None:
    printed = run_python(
        "import json; from tasks import moderate_item\n"
        "message = moderate_item.send(2)\n"
        "print(json.dumps(message.get_result(block=True, timeout=40_000)))"
    )
    result = json.loads(printed)
    assert list(result) == ["is_violation", "probability"]
    [row] = execute(
        shared_database,
        "SELECT item_id, status, is_violation, probability, publish_after FROM moderation_results",
    )
    assert row == (2, "completed", result["is_violation"], result["probability"], None)


@pytest.mark.usefixtures("worker")
def test_the_result_of_a_failed_task_raises_with_its_error(run_python: RunPython) -> None:
    printed = run_python(
        "from dramatiq.results import ResultFailure; from tasks import moderate_item\n"
        "try: moderate_item.send(77).get_result(block=True, timeout=40_000)\n"
        "except ResultFailure as failure: print(failure)"
    )
    assert "There is no ad with item_id 77" in printed


@pytest.mark.usefixtures("shared_database")
def test_a_result_that_is_not_there_yet_is_missing(run_python: RunPython) -> None:
    printed = run_python(
        "from dramatiq.results import ResultMissing, ResultTimeout; from tasks import moderate_item\n"
        "message = moderate_item.message(1)\n"
        "try: message.get_result()\n"
        "except ResultMissing: print('missing')\n"
        "try: message.get_result(block=True, timeout=300)\n"
        "except ResultTimeout: print('timeout')"
    )
    assert printed.split() == ["missing", "timeout"]


@pytest.mark.usefixtures("shared_database")
def test_the_result_of_a_cancelled_task_is_a_failure_that_says_so(
    run_python: RunPython, shared_database: Engine
) -> None:
    [message_id] = submit(shared_database)
    with transaction(shared_database) as connection:
        assert cancelling.cancel(connection, 1)
    printed = run_python(
        "from dramatiq.results import ResultFailure\n"
        "from db.outbox import Unpublished\n"
        "from submissions.message import message_of\n"
        "import tasks\n"
        f"message = message_of(Unpublished({message_id!r}, 0, 1))\n"
        "try: message.get_result()\n"
        "except ResultFailure as failure: print(failure)"
    )
    assert "Task 1 was cancelled" in printed


@pytest.mark.usefixtures("worker")
def test_submissions_made_from_plain_python_are_published_at_once_and_know_unknown_ads(
    run_python: RunPython, shared_database: Engine
) -> None:
    printed = run_python(
        "from settings import get_settings\n"
        "from submissions.application import Application\n"
        "from submissions.submitting import SubmissionRequest\n"
        "application = Application(get_settings())\n"
        "[accepted] = application.submitter.submit([SubmissionRequest((1, 99, 1))])\n"
        "print(accepted.task_ids)"
    )
    assert printed == "(1, None, 2)"
    assert execute(
        shared_database, "SELECT count(*) FROM moderation_results WHERE publish_after IS NULL"
    ) == [(2,)]


@pytest.mark.usefixtures("shared_database")
def test_the_actor_called_as_a_function_only_scores(run_python: RunPython, shared_database: Engine) -> None:
    printed = run_python("import json; from tasks import moderate_item; print(json.dumps(moderate_item(1)))")
    assert list(json.loads(printed)) == ["is_violation", "probability"]
    assert execute(shared_database, "SELECT count(*) FROM moderation_results") == [(0,)]


@pytest.mark.parametrize(
    "module",
    [
        "tasks",
        "api",
        "submissions.application",
        "submissions.console.command",
        "main",
        "db.engine",
        "settings",
    ],
)
def test_importing_connects_to_nothing_and_loads_no_model(run_python: RunPython, module: str) -> None:
    run_python(
        "import socket, builtins\n"
        "def refuse(*_): raise AssertionError('connected')\n"
        "socket.socket.connect = socket.socket.connect_ex = refuse\n"
        "import psycopg2; psycopg2.connect = refuse\n"
        "import joblib; joblib.load = refuse\n"
        f"import {module}"
    )
