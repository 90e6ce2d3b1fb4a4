"""Redriving failed submissions from the command line: row and dead letter end in agreement."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from broker import KafkaBroker
from db import history
from db.engine import transaction
from db.history import PastOutcome
from db.outbox import Unpublished
from db.submissions import Submission
from dev.stack import ROOT
from submissions.message import message_of
from tests.db.rows import execute, load_sample_ads, submission_of, submit
from tests.tasks.waits import dead_letters_of, wait_for_dead_letter, wait_for_outcome, wait_until_all_done
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("worker")

RedriveCommand = Callable[..., "subprocess.CompletedProcess[str]"]

#: Dies after the rows are back to pending and before the dead letters are discarded.
DIES_HALF_WAY = """
import os, signal
from settings import get_settings
from submissions.broker_factory import make_broker
from submissions.database import Database
from submissions.redrive import Redriver, Selection
settings = get_settings()
broker = make_broker(settings)
broker.discard = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
Redriver(Database(settings), broker).redrive(Selection(), reason="interrupted", dry_run=False)
"""


@pytest.fixture
def command(shared_env: dict[str, str]) -> RedriveCommand:
    def run(*arguments: str, program: tuple[str, ...] = ("-m", "submissions.redrive")) -> Any:
        return subprocess.run(
            [sys.executable, *program, *arguments],
            env=shared_env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return run


@pytest.fixture
def failed(kafka: KafkaBroker, database: Engine) -> str:
    """The message of submission 1, which failed as its ad was missing; the ad is back."""
    [message_id] = submit(database, [2])
    execute(database, "DELETE FROM items WHERE id = 2")
    kafka.enqueue(message_of(Unpublished(message_id, 0, 2)))
    assert wait_for_outcome(database, message_id).status == "failed"
    wait_for_dead_letter(kafka, message_id)
    wait_until_all_done(kafka)
    load_sample_ads(database, 3)
    return message_id


def wait_for_verdict(engine: Engine, message_id: str) -> Submission:
    def completed() -> Submission | None:
        found = submission_of(engine, message_id)
        return found if found and found.status == "completed" else None

    return wait_until(completed, deadline_s=60, what="the verdict of the redrive")


def history_of(engine: Engine, task_id: int) -> list[PastOutcome]:
    with transaction(engine) as connection:
        return history.read_history(connection, [task_id])[task_id]


def test_a_redriven_submission_gets_its_verdict_and_its_dead_letter_is_discarded(
    command: RedriveCommand, kafka: KafkaBroker, database: Engine, failed: str
) -> None:
    done = command("1", "--apply", "--reason", "the ad is back", "--by", "ann")
    assert done.returncode == 0, done.stderr
    assert "1 submissions were put back to pending" in done.stdout
    assert "There is no ad with item_id 2" in done.stdout
    assert wait_for_verdict(database, failed).generation == 1
    assert dead_letters_of(kafka, failed) == []
    [past] = history_of(database, 1)
    assert (past.status, past.redriven_by, past.reason) == ("failed", "ann", "the ad is back")
    # The history is in the order of the partitions, and other tests' resolutions may come last.
    [resolution] = [one for one in kafka.dead_letter_queue.history("moderation") if one.by == "ann"]
    assert "the ad is back" in resolution.reason


def test_without_apply_it_says_what_it_would_do_and_does_nothing(
    command: RedriveCommand, kafka: KafkaBroker, database: Engine, failed: str
) -> None:
    before = submission_of(database, failed)
    said = command("1", "7")
    assert said.returncode == 0, said.stderr
    assert "1 submissions would be put back to pending" in said.stdout
    assert "left as they are: 7" in said.stdout
    assert "1 dead letters would be discarded" in said.stdout
    assert "Nothing was changed" in said.stdout
    assert submission_of(database, failed) == before
    assert len(dead_letters_of(kafka, failed)) == 1


def test_killed_half_way_and_run_again_it_has_its_effect_once(
    command: RedriveCommand, kafka: KafkaBroker, database: Engine, failed: str
) -> None:
    assert command(DIES_HALF_WAY, program=("-c",)).returncode == -9
    assert wait_for_verdict(database, failed).generation == 1
    assert len(dead_letters_of(kafka, failed)) == 1
    done = command("--all", "--apply", "--reason", "once more")
    assert "0 submissions were put back" in done.stdout
    assert dead_letters_of(kafka, failed) == []
    found = submission_of(database, failed)
    assert found is not None
    assert (found.status, found.generation) == ("completed", 1)
    assert [past.reason for past in history_of(database, 1)] == ["interrupted"]


def test_what_fails_again_has_a_dead_letter_again(
    command: RedriveCommand, kafka: KafkaBroker, database: Engine, failed: str
) -> None:
    execute(database, "DELETE FROM items WHERE id = 2")
    command("--all", "--apply", "--reason", "hope")
    found = wait_until(
        lambda: one if (one := submission_of(database, failed)) and one.status == "failed" else None,
        deadline_s=60,
        what="the second failure",
    )
    assert found.generation == 1
    wait_until(
        lambda: [dead_letter.generation for dead_letter in dead_letters_of(kafka, failed)] == [1],
        deadline_s=60,
        what="its dead letter, and no other",
    )
    assert "0 dead letters were" in command("7", "--apply", "--reason", "nothing to do").stdout
    assert [dead_letter.generation for dead_letter in dead_letters_of(kafka, failed)] == [1]


def test_a_late_failure_of_the_old_generation_changes_nothing(
    command: RedriveCommand, kafka: KafkaBroker, database: Engine, failed: str
) -> None:
    command("1", "--apply", "--reason", "the ad is back")
    first = wait_for_verdict(database, failed)
    execute(database, "DELETE FROM items WHERE id = 2")
    kafka.enqueue(message_of(Unpublished(failed, 0, 2)))
    wait_for_dead_letter(kafka, failed)
    wait_until_all_done(kafka)
    assert submission_of(database, failed) == first
    assert len(history_of(database, 1)) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say --all"),
        (["1", "--all"], "say --all"),
        (["one"], "'one' is no task id"),
        (["0"], "'0' is no task id"),
        (["--all", "--apply"], "needs --reason"),
        (["--all", "--since", "yesterday"], "is no time"),
        (["--all", "--since", "2026-01-31"], "no time zone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_that_make_no_sense_are_refused(
    command: RedriveCommand, arguments: list[str], said: str
) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
