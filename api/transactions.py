"""The blocking calls behind the handlers: one transaction each."""

from collections.abc import Sequence

from db import cancelling, items, submissions
from db.history import PastOutcome, read_history
from db.items import AdFields
from db.judgements import Judgement, read_judgement
from db.listing import read_page
from db.submissions import Status, Submission
from tasks.resources import database


def read_results(task_ids: list[int]) -> Sequence[Submission | None]:
    """Return the submission of each task id, None where there is none."""
    with database() as connection:
        found = submissions.read_by_task_ids(connection, task_ids)
    return [found.get(task_id) for task_id in task_ids]


def read_ads(item_ids: list[int]) -> Sequence[AdFields | None]:
    """Return the ad of each id, None where there is none."""
    with database() as connection:
        found = items.read_ads(connection, item_ids)
    return [found.get(item_id) for item_id in item_ids]


def read_submissions(
    *, limit: int, before: int | None, status: Status | None, item_id: int | None
) -> Sequence[Submission]:
    """Return a page of submissions, newest first."""
    with database() as connection:
        return read_page(connection, limit=limit, before=before, status=status, item_id=item_id)


def read_judgement_of(task_id: int) -> Judgement | None:
    """Return how a submission's verdict was reached, None where that was not kept."""
    with database() as connection:
        return read_judgement(connection, task_id)


def read_history_of(task_id: int) -> Sequence[PastOutcome]:
    """Return what the submission's earlier generations came to, oldest first."""
    with database() as connection:
        return read_history(connection, [task_id]).get(task_id, [])


def cancel(task_id: int) -> Submission | None:
    """Cancel the submission unless it has an outcome; return what it is now, None when there is none."""
    with database() as connection:
        cancelling.cancel(connection, task_id)
        return submissions.read_by_task_ids(connection, [task_id]).get(task_id)


def store_ads(ads: Sequence[AdFields]) -> set[int]:
    """Store the ads and their sellers; return the ids of those that are new."""
    with database() as connection:
        return items.load_ads(connection, ads)
