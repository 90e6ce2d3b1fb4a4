"""The bodies of submissions follow the rows."""

from dataclasses import fields
from datetime import UTC, datetime

import pytest

from api.schemas.results import RESULT, SubmissionDetailsBody, details_body
from db.submissions import Submission
from db.tables import moderation_results

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
PENDING = Submission(1, 2, "pending", None, None, None, "m", 0, NOW, None, NOW)


def test_every_column_of_a_submission_is_a_field_and_every_field_is_in_its_details() -> None:
    names = {field.name for field in fields(Submission)}
    assert names == {column.name for column in moderation_results.columns} - {"id"} | {"task_id"}
    read = {field.validation_alias or name for name, field in SubmissionDetailsBody.model_fields.items()}
    assert names == read - {"verdict", "is_stale", "history"}


@pytest.mark.parametrize(("publish_after", "is_published"), [(NOW, False), (None, True)])
def test_a_submission_is_published_when_nothing_is_due(
    publish_after: datetime | None, is_published: bool
) -> None:
    row = Submission(1, 2, "pending", None, None, None, "m", 0, NOW, None, publish_after)
    assert details_body(row, None, []).is_published is is_published


def test_a_result_that_contradicts_its_status_is_refused() -> None:
    broken = Submission(1, 2, "completed", None, None, None, "m", 0, NOW, NOW, None)
    with pytest.raises(ValueError, match="is_violation"):
        RESULT.validate_python(broken, from_attributes=True)


def test_times_are_in_utc_with_an_offset() -> None:
    body = details_body(PENDING, None, []).model_dump_json()
    assert '"created_at":"2026-01-31T12:00:00+00:00"' in body
