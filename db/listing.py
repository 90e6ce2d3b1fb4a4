"""Pages of submissions, newest first."""

from collections.abc import Sequence

from sqlalchemy import ARRAY, Connection, Text, cast, func, select, true

from db.submissions import READ, STATUSES, Status, Submission
from db.tables import moderation_results


def read_page(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    status: Status | None = None,
    item_id: int | None = None,
    client_id: int | None = None,
) -> Sequence[Submission]:
    """Return up to ``limit`` submissions whose task id is below ``before``, newest first.

    The statement reads one page of each status from the end of an index and takes the newest rows of all.
    The cost does not grow with the table, however rare the wanted rows are. With both ``item_id`` and
    ``client_id`` it may grow with the submissions of the ad.

    Parameters:
      client_id: Only submissions of this client; of all when None.
    """
    wanted = (
        func.unnest(cast([status] if status else list(STATUSES), ARRAY(Text)))
        .table_valued("status")
        .render_derived()
    )
    row = moderation_results.c
    page = READ.where(row.status == wanted.c.status)
    if before is not None:
        page = page.where(row.id < before)
    if item_id is not None:
        page = page.where(row.item_id == item_id)
    if client_id is not None:
        page = page.where(row.client_id == client_id)
    found = page.order_by(row.id.desc()).limit(limit).lateral("found")
    newest = select(found).select_from(wanted.join(found, true())).order_by(found.c.id.desc()).limit(limit)
    return [Submission(*tuple(one)) for one in connection.execute(newest)]
