"""Dramatiq results straight from the submissions: the row that the actor wrote *is* the result."""

from typing import Any

from dramatiq.results import ResultBackend
from dramatiq.results.backend import Missing
from dramatiq.results.result import wrap_exception

from db import submissions
from tasks.message import ACTOR
from tasks.resources import database


class ModerationFailed(Exception):
    """The submission failed; the text is its error."""


class ModerationCancelled(Exception):
    """The submission was cancelled before it had a verdict."""


class SubmissionResults(ResultBackend):
    """Reads the result of a ``moderate_item`` message from its submission; stores nothing of its own.

    A completed submission gives ``{"is_violation": ..., "probability": ...}``, a failed or
    cancelled one raises ``dramatiq.results.ResultFailure``. Results live as long as their rows; a time to
    live is ignored.
    """

    def build_message_key(self, message: Any) -> str:
        if message.actor_name != ACTOR:
            raise NotImplementedError(
                f"results are kept for {ACTOR} only, not for {message.actor_name}: "
                "give that actor a results backend of its own"
            )
        message_id: str = message.message_id
        return message_id

    def _get(self, message_key: str) -> Any:
        with database() as connection:
            submission = submissions.read_by_message_id(connection, message_key)
        if submission is None or submission.status == "pending":
            return Missing
        if submission.status == "failed":
            return wrap_exception(ModerationFailed(submission.error_message))
        if submission.status == "cancelled":
            return wrap_exception(ModerationCancelled(f"Task {submission.task_id} was cancelled"))
        return {"is_violation": submission.is_violation, "probability": submission.probability}

    def _store(self, message_key: str, result: Any, ttl: int) -> None:
        """Do nothing: verdict and failure are in PostgreSQL before the message is acked."""
