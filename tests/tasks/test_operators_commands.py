"""``python -m submissions``: show, redrive, requeue and stats, as an operator types them."""

import json
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

Command = Callable[..., "subprocess.CompletedProcess[str]"]

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
def command(shared_env: dict[str, str], worker: object) -> Command:
    def run(
        *arguments: str, program: tuple[str, ...] = ("-m", "submissions"), typed: str = "", **changed: str
    ) -> Any:
        return subprocess.run(
            [sys.executable, *program, *arguments],
            input=typed,
            env={**shared_env, **changed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return run


@pytest.fixture
def failed(kafka: KafkaBroker, shared_database: Engine) -> str:
    """The message of submission 1, which failed as its ad was missing; the ad is back."""
    [message_id] = submit(shared_database, [2])
    execute(shared_database, "DELETE FROM items WHERE id = 2")
    kafka.enqueue(message_of(Unpublished(message_id, 0, 2)))
    assert wait_for_outcome(shared_database, message_id).status == "failed"
    wait_for_dead_letter(kafka, message_id)
    wait_until_all_done(kafka)
    load_sample_ads(shared_database, 3)
    return message_id


def wait_for_verdict(engine: Engine, message_id: str) -> Submission:
    def completed() -> Submission | None:
        found = submission_of(engine, message_id)
        return found if found and found.status == "completed" else None

    return wait_until(completed, deadline_s=60, what="the verdict of the redrive")


def history_of(engine: Engine, task_id: int) -> list[PastOutcome]:
    with transaction(engine) as connection:
        return history.read_history(connection, [task_id])[task_id]


def audited(engine: Engine) -> list[tuple[object, ...]]:
    return execute(engine, "SELECT action, done_by, task_ids, reason FROM audit_log ORDER BY id")


def test_a_redriven_submission_gets_its_verdict_and_its_dead_letter_is_discarded(
    command: Command, kafka: KafkaBroker, shared_database: Engine, failed: str
) -> None:
    redrive = ("redrive", "1", "--apply", "--reason", "the ad is back", "--by", "ann")
    assert command(*redrive, typed="2\n").returncode == 6
    assert submission_of(shared_database, failed).status == "failed"  # type: ignore[union-attr]
    done = command(*redrive, typed="1\n")
    assert done.returncode == 0, done.stderr
    assert "This will redrive 1 submission. Type 1 to confirm" in done.stderr
    assert "Redriven: 1 submission. Discarded: 1 dead letter." in done.stdout
    assert "There is no ad with item_id 2" in done.stdout
    assert wait_for_verdict(shared_database, failed).generation == 1
    assert dead_letters_of(kafka, failed) == []
    [past] = history_of(shared_database, 1)
    assert (past.status, past.redriven_by, past.reason) == ("failed", "ann", "the ad is back")
    assert audited(shared_database) == [("redrive", "ann", [1], "the ad is back")]
    listed = command("audit", "--task", "1", "--json", program=("-m", "submissions.keys"))
    assert [entry["action"] for entry in json.loads(listed.stdout)["entries"]] == ["redrive"]
    # The history is in the order of the partitions, and other tests' resolutions may come last.
    [resolution] = [one for one in kafka.dead_letter_queue.history("moderation") if one.by == "ann"]
    assert "the ad is back" in resolution.reason


def test_without_apply_it_says_what_it_would_do_and_does_nothing(
    command: Command, kafka: KafkaBroker, shared_database: Engine, failed: str
) -> None:
    before = submission_of(shared_database, failed)
    said = command("redrive", "1", "7")
    assert said.returncode == 0, said.stderr
    assert "Would redrive 1 submission, and discard 1 dead letter." in said.stdout
    assert "left as they are: 7" in said.stdout
    assert "nothing was changed" in said.stderr
    assert submission_of(shared_database, failed) == before
    assert audited(shared_database) == []
    assert len(dead_letters_of(kafka, failed)) == 1


def test_killed_half_way_and_run_again_it_has_its_effect_once(
    command: Command, kafka: KafkaBroker, shared_database: Engine, failed: str
) -> None:
    assert command(DIES_HALF_WAY, program=("-c",)).returncode == -9
    assert wait_for_verdict(shared_database, failed).generation == 1
    assert len(dead_letters_of(kafka, failed)) == 1
    done = command("redrive", "--all", "--apply", "--yes", "--reason", "once more")
    assert "Redriven: 0 submissions. Discarded: 1 dead letter." in done.stdout
    assert dead_letters_of(kafka, failed) == []
    found = submission_of(shared_database, failed)
    assert found is not None
    assert (found.status, found.generation) == ("completed", 1)
    assert [past.reason for past in history_of(shared_database, 1)] == ["interrupted"]
    assert [(action, reason) for action, _, _, reason in audited(shared_database)] == [
        ("redrive", "interrupted")
    ]


def test_what_fails_again_has_a_dead_letter_again(
    command: Command, kafka: KafkaBroker, shared_database: Engine, failed: str
) -> None:
    execute(shared_database, "DELETE FROM items WHERE id = 2")
    command("redrive", "--all", "--apply", "--yes", "--reason", "hope")
    found = wait_until(
        lambda: one if (one := submission_of(shared_database, failed)) and one.status == "failed" else None,
        deadline_s=60,
        what="the second failure",
    )
    assert found.generation == 1
    wait_until(
        lambda: [dead_letter.generation for dead_letter in dead_letters_of(kafka, failed)] == [1],
        deadline_s=60,
        what="its dead letter, and no other",
    )
    said = command("redrive", "7", "--apply", "--yes", "--reason", "nothing to do")
    assert "Discarded: 0 dead letters." in said.stdout
    assert [dead_letter.generation for dead_letter in dead_letters_of(kafka, failed)] == [1]


def test_a_late_failure_of_the_old_generation_changes_nothing(
    command: Command, kafka: KafkaBroker, shared_database: Engine, failed: str
) -> None:
    command("redrive", "1", "--apply", "--yes", "--reason", "the ad is back")
    first = wait_for_verdict(shared_database, failed)
    execute(shared_database, "DELETE FROM items WHERE id = 2")
    kafka.enqueue(message_of(Unpublished(failed, 0, 2)))
    wait_for_dead_letter(kafka, failed)
    wait_until_all_done(kafka)
    assert submission_of(shared_database, failed) == first
    assert len(history_of(shared_database, 1)) == 1


def test_show_has_the_verdict_and_the_earlier_failures_of_a_submission(
    command: Command, kafka: KafkaBroker, shared_database: Engine, failed: str
) -> None:
    text = command("show", "1").stdout
    assert "There is no ad with item_id 2" in text
    assert "Traceback" in text
    command("redrive", "1", "--apply", "--yes", "--reason", "the ad is back", "--by", "ann")
    wait_for_verdict(shared_database, failed)
    ran = command("show", "1", "--json")
    document = json.loads(ran.stdout)
    assert (document["verb"], document["submission"]["status"]) == ("show", "completed")
    assert document["submission"]["message_id"] == failed
    assert document["judgement"]["decision"] in ("approve", "review", "reject")
    assert [(past["status"], past["by"], past["reason"]) for past in document["history"]] == [
        ("failed", "ann", "the ad is back")
    ]
    assert (document["dead_letters"], document["missing"]) == ([], [])
    unknown = command("show", "7000")
    assert (unknown.returncode, unknown.stderr) == (1, "submissions: There is no submission 7000.\n")


def test_requeue_publishes_a_submission_whose_message_is_lost_and_leaves_the_others(
    command: Command, kafka: KafkaBroker, shared_database: Engine
) -> None:
    lost, delayed = submit(shared_database, [1, 2])
    # Kafka has had both messages, and the first one is gone.
    execute(
        shared_database,
        "UPDATE moderation_results SET publish_after = NULL, created_at = now() - interval '1 hour'",
    )
    kafka.enqueue(message_of(Unpublished(delayed, 0, 2)), delay=3_600_000)
    ran = command("requeue", "--all", "--json")
    document = json.loads(ran.stdout)
    assert [row["message_id"] for row in document["lost"]] == [lost]
    assert document["left"] == {"its message is delayed, or waits for its retry": 1}
    assert submission_of(shared_database, lost).status == "pending"  # type: ignore[union-attr]
    young = command("requeue", "--all", "--older-than", "2h").stdout
    assert "Would publish 0 submissions again." in young
    assert "2  it is younger than --older-than: its message may be on its way" in young
    assert audited(shared_database) == []
    done = command("requeue", "--all", "--apply", "--by", "ann", typed="1\n")
    assert done.returncode == 0, done.stderr
    assert "Due to be published again: 1 submission." in done.stdout
    assert audited(shared_database) == [("requeue", "ann", [1], None)]
    assert wait_for_verdict(shared_database, lost).generation == 0
    assert submission_of(shared_database, delayed).status == "pending"  # type: ignore[union-attr]
    kafka.cancel(delayed)


def test_stats_count_submissions_by_status_error_and_decision(
    command: Command, kafka: KafkaBroker, shared_database: Engine, failed: str
) -> None:
    [message_id] = submit(shared_database, [1])
    kafka.enqueue(message_of(Unpublished(message_id, 0, 1)))
    wait_for_verdict(shared_database, message_id)
    ran = command("stats", "--json")
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert {row["status"]: row["count"] for row in document["statuses"]} == {"completed": 1, "failed": 1}
    period = document["period"]
    assert (period["submitted"], period["completed"], period["failed"]) == (2, 1, 1)
    assert period["p50_s"] > 0
    assert [row["count"] for row in document["errors"]] == [1]
    assert sum(row["count"] for row in document["decisions"]) == 1
    assert document["queue"]["dead"] >= 1
    assert "Failed, by error" in command("stats").stdout


def test_an_unreachable_server_is_one_sentence_and_exit_code_3(
    command: Command, shared_database: Engine
) -> None:
    away = command("show", "1", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (away.returncode, away.stdout, len(away.stderr.splitlines())) == (3, "", 1)
    partly = command("stats", "--json", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (partly.returncode, json.loads(partly.stdout)["queue"]) == (0, None)
    assert partly.stderr.startswith("Incomplete: the queue: ")
