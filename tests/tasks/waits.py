"""What the tests of tasks wait for."""

from sqlalchemy import Engine

from broker import DeadLetter, KafkaBroker
from db.submissions import Submission
from tests.db.rows import execute, submission_of
from tests.service import Worker
from tests.waiting import wait_until


def wait_for_outcome(engine: Engine, message_id: str, *, deadline_s: float = 60.0) -> Submission:
    """Wait until the message's submission is completed or failed."""

    def finished() -> Submission | None:
        submission = submission_of(engine, message_id)
        return submission if submission and submission.status != "pending" else None

    return wait_until(finished, deadline_s=deadline_s, what=f"the outcome of {message_id}")


def wait_for_dead_letter(kafka: KafkaBroker, message_id: str) -> DeadLetter:
    """Wait until the message is among the dead letters."""
    [dead_letter] = wait_until(
        lambda: dead_letters_of(kafka, message_id), deadline_s=60, what=f"the dead letter of {message_id}"
    )
    return dead_letter


def dead_letters_of(kafka: KafkaBroker, message_id: str) -> list[DeadLetter]:
    dead_letters = kafka.dead_letters("moderation")
    return [
        dead_letter
        for dead_letter in dead_letters
        if dead_letter.message and dead_letter.message.message_id == message_id
    ]


def wait_until_all_done(kafka: KafkaBroker) -> None:
    """Wait until every delivery is complete."""
    kafka.join("moderation", timeout=60_000)


def wait_for_line(worker: Worker, text: str) -> None:
    """Wait until the worker has logged the text."""

    def logged() -> bool:
        worker.child.check()
        return text in worker.child.tail(1000)

    wait_until(logged, deadline_s=60, what=f"{text!r} in the worker's log")


def wait_for_a_lock(engine: Engine) -> None:
    """Wait until somebody waits for a lock that the test holds."""
    wait_until(
        lambda: execute(engine, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
        deadline_s=60,
        what="somebody to wait for the lock",
    )
