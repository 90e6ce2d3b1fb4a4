"""Which page of submissions a request asks for."""

from dataclasses import dataclass

from sanic import Request

from api.parsing import id_from_text, one_in_query, shown
from api.problems import Unprocessable
from db.submissions import MAX_ID, STATUSES, Status

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


@dataclass(frozen=True, slots=True)
class PageWanted:
    """``before`` is the last task id of the page before, None on the first."""

    limit: int
    before: int | None
    status: Status | None
    item_id: int | None


def page_of(request: Request) -> PageWanted:
    """Read ``status``, ``item_id``, ``cursor`` and ``limit`` from the query string.

    Raises:
      Unprocessable: naming the one that cannot be used.
    """
    limit, before, item_id = (
        None if (text := one_in_query(request, name)) is None else id_from_text(name, text, most=most)
        for name, most in (("limit", MAX_LIMIT), ("cursor", MAX_ID), ("item_id", MAX_ID))
    )
    return PageWanted(limit or DEFAULT_LIMIT, before, _status_of(request), item_id)


def _status_of(request: Request) -> Status | None:
    given = one_in_query(request, "status")
    if given is None:
        return None
    for status in STATUSES:
        if status == given:
            return status
    raise Unprocessable(f"status must be one of {', '.join(STATUSES)}, not {shown(given)}")
