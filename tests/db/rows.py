"""Rows that the tests of several packages start from."""

from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy import Engine, text

from db import items, submissions
from db.engine import transaction
from db.submissions import NewSubmission, Submission
from training.sample_ads import sample_ads


def load_sample_ads(engine: Engine, count: int = 3) -> None:
    """Ads with the ids 1..count."""
    with transaction(engine) as connection:
        items.load_ads(connection, sample_ads(count, seed=1))


def submit(engine: Engine, item_ids: Sequence[int] = (1,), *, lease_s: float = 30.0) -> list[str]:
    """Pending rows for ads that exist; returns their message ids."""
    new = [NewSubmission(str(uuid4()), item_id) for item_id in item_ids]
    with transaction(engine) as connection:
        submissions.insert_pending(connection, new, lease_s=lease_s)
    return [one.message_id for one in new]


def submission_of(engine: Engine, message_id: str) -> Submission | None:
    with transaction(engine) as connection:
        return submissions.read_by_message_id(connection, message_id)


def execute(engine: Engine, statement: str, **parameters: object) -> list[tuple[object, ...]]:
    """Run SQL that the product has no statement for."""
    with transaction(engine) as connection:
        result = connection.execute(text(statement), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []
