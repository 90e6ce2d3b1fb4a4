"""Reading submissions, and cancelling one. Each call blocks and uses one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from db import audit, cancelling, items, submissions
from db.audit import Change
from db.history import PastOutcome, read_history
from db.judgements import Judgement, read_judgement
from db.listing import read_page
from db.submissions import Status, Submission
from submissions.callers import ANYBODY, Caller
from submissions.database import Database


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page of submissions, newest first.

    Attributes:
      limit: Submissions on the page at most.
      before: The last task id of the previous page; None for the first page.
      status, item_id: Only submissions with these values; None for all.
    """

    limit: int
    before: int | None = None
    status: Status | None = None
    item_id: int | None = None


@dataclass(frozen=True, slots=True)
class SubmissionDetails:
    """All that is known of a submission.

    Attributes:
      judgement: That of its verdict; None without one.
      is_stale: Whether the ad has changed since it was scored; None where that is not known.
      history: The outcomes of its earlier generations, oldest first.
    """

    submission: Submission
    judgement: Judgement | None
    is_stale: bool | None
    history: Sequence[PastOutcome]


class SubmissionQueries:
    """Reads submissions. Every method raises DatabaseError when PostgreSQL fails. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, task_ids: list[int]) -> Sequence[Submission | None]:
        """Return the submission of each task id; None for an unknown one."""
        with self._database.transaction() as connection:
            found = submissions.read_by_task_ids(connection, task_ids)
        return [found.get(task_id) for task_id in task_ids]

    def page(self, wanted: PageRequest, caller: Caller = ANYBODY) -> tuple[Sequence[Submission], bool]:
        """Return the page of the submissions that the caller sees, and whether another follows."""
        with self._database.transaction() as connection:
            found = read_page(
                connection,
                limit=wanted.limit + 1,
                before=wanted.before,
                status=wanted.status,
                item_id=wanted.item_id,
                client_id=None if caller.sees_all else caller.client_id,
            )
        return found[: wanted.limit], len(found) > wanted.limit

    def details_each(self, wanted: Sequence[tuple[int, Caller]]) -> list[SubmissionDetails | None]:
        """Return all of each submission; None for one that is unknown or that its caller does not see."""
        return [self._details(task_id, caller) for task_id, caller in wanted]

    def _details(self, task_id: int, caller: Caller) -> SubmissionDetails | None:
        with self._database.transaction() as connection:
            submission = submissions.read_by_task_ids(connection, [task_id]).get(task_id)
            if submission is None or not caller.sees(submission.client_id):
                return None
            judgement = read_judgement(connection, task_id)
            history = read_history(connection, [task_id]).get(task_id, [])
            is_stale = None
            if judgement is not None and judgement.ad_hash is not None:
                ad = items.read_ads(connection, [submission.item_id]).get(submission.item_id)
                is_stale = ad is None or items.ad_hash(cast(items.AdFields, ad)) != judgement.ad_hash
        return SubmissionDetails(submission, judgement, is_stale, history)

    def cancel(self, task_id: int, caller: Caller = ANYBODY) -> Submission | None:
        """Cancel a submission that has no outcome; return its present row.

        Returns:
          None for an unknown task id, and for a submission that the caller may not cancel.
        """
        only_of = None if caller.changes_all else caller.client_id
        with self._database.transaction() as connection:
            if cancelling.cancel(connection, task_id, client_id=only_of) and caller.key_id:
                audit.record(
                    connection, Change("cancel", caller.key_id, caller.client_id, task_ids=[task_id])
                )
            found = submissions.read_by_task_ids(connection, [task_id]).get(task_id)
        return found if found and only_of in (None, found.client_id) else None
