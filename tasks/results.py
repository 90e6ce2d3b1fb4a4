"""Dramatiq's result backend: the row of a submission is the result of its message."""

from typing import Any

from dramatiq.results import ResultBackend
from dramatiq.results.backend import Missing
from dramatiq.results.result import wrap_exception

from db import submissions
from submissions.database import Database
from submissions.message import ACTOR


class ModerationFailed(Exception):
    """The submission failed; the text is its error."""


class ModerationCancelled(Exception):
    """The submission was cancelled before it had a verdict."""


class SubmissionResults(ResultBackend):
    """Reads the result of a ``moderate_item`` message from its submission. It stores nothing.

    A completed submission gives ``{"is_violation": ..., "probability": ...}``; a failed or cancelled one
    raises ``dramatiq.results.ResultFailure``. A result lives as long as its row: a time to live is ignored.
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    def build_message_key(self, message: Any) -> str:
        if message.actor_name != ACTOR:
            raise NotImplementedError(
                f"results are kept for {ACTOR} only, not for {message.actor_name}: "
                "give that actor a results backend of its own"
            )
        message_id: str = message.message_id
        return message_id

    def _get(self, message_key: str) -> Any:
        with self._database.transaction() as connection:
            submission = submissions.read_by_message_id(connection, message_key)
        if submission is None or submission.status == "pending":
            return Missing
        if submission.status == "failed":
            return wrap_exception(ModerationFailed(submission.error_message))
        if submission.status == "cancelled":
            return wrap_exception(ModerationCancelled(f"Task {submission.task_id} was cancelled"))
        return {"is_violation": submission.is_violation, "probability": submission.probability}

    def _store(self, message_key: str, result: Any, ttl: int) -> None:
        """Do nothing: PostgreSQL has the outcome before the message is acked."""
