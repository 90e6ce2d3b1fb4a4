"""Handing ads in."""

from collections.abc import Sequence
from uuid import uuid4

from db import submissions
from db.outbox import Unpublished
from tasks.resources import database
from tasks.wiring import outbox


def submit_many(item_ids: Sequence[int]) -> list[int | None]:
    """Write a pending submission for each ad and have its message published.

    Once this returns, the submissions are accepted: they are in PostgreSQL, and when Kafka is away now the
    relay publishes them later. One INSERT and one produce for the lot; an id given twice is two submissions.

    Returns:
      For each id its task id, or None where there is no such ad.

    Raises:
      DatabaseUnavailable: nothing is accepted (or everything, when the connection broke while committing).
    """
    new = [submissions.NewSubmission(str(uuid4()), item_id) for item_id in item_ids]
    lease = outbox.lease()
    with database() as connection:
        task_ids = submissions.insert_pending(connection, new, lease_s=lease.duration_s)
    outbox.publish(
        [Unpublished(one.message_id, 0, one.item_id) for one in new if one.message_id in task_ids], lease
    )
    return [task_ids.get(one.message_id) for one in new]
