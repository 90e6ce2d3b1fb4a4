"""The sellers whose verification changed, and the search for their stale ads.

A trigger notes each change (migration V09). A seller can have any number of ads: a relay leases some changes,
reads a batch of the sellers' ads, and hands in those whose verdict is stale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Connection, text

from db.items import AdFields, ad_hash


@dataclass(frozen=True, slots=True)
class VerificationChange:
    """A change of one seller's verification.

    Attributes:
      changed_at: The beginning of the transaction that changed it.
      noticed_at: A time at which that transaction was committed.
      done_item_id: The ads of the seller up to this id were checked.
    """

    change_id: int
    seller_id: int
    changed_at: datetime
    noticed_at: datetime
    done_item_id: int


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of one batch.

    Attributes:
      done: The changes of which every ad was checked.
      partial: The change whose ads were checked up to an id, and that id; None when all were checked.
      stale: The ids of the ads to hand in again.
    """

    done: tuple[int, ...]
    partial: tuple[int, int] | None
    stale: tuple[int, ...]


# clock_timestamp() and not now(): the snapshot that shows the change may be younger than the transaction.
_CLAIM = text(
    """
    UPDATE verification_changes AS change
    SET due_at = now() + make_interval(secs => :lease_s), noticed_at = COALESCE(noticed_at, clock_timestamp())
    FROM (
        SELECT id FROM verification_changes WHERE due_at <= now() ORDER BY due_at, id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ) AS due
    WHERE change.id = due.id
    RETURNING change.id, seller_id, changed_at, noticed_at, done_item_id
    """
)

# A submission after noticed_at, or of the transaction of the change, is scored with the present verification.
# A worker may have read the ad of any other one before the change.
_READ = text(
    """
    SELECT change.id AS change_id, ad.id AS item_id, ad.seller_id, seller.is_verified_seller, ad.name,
        ad.description, ad.category, ad.images_qty, pending.id AS pending_id, completed.id AS completed_id,
        pending.created_at >= change.noticed_at OR pending.created_at = change.changed_at AS is_fresh,
        judgement.ad_hash AS scored_hash
    FROM unnest(
        CAST(:change_ids AS bigint[]), CAST(:seller_ids AS bigint[]), CAST(:changed_ats AS timestamptz[]),
        CAST(:noticed_ats AS timestamptz[]), CAST(:done_item_ids AS bigint[])
    ) WITH ORDINALITY AS change (id, seller_id, changed_at, noticed_at, done_item_id, place)
    JOIN users AS seller ON seller.id = change.seller_id
    CROSS JOIN LATERAL (
        SELECT * FROM items WHERE seller_id = change.seller_id AND id > change.done_item_id
        ORDER BY id LIMIT :limit
    ) AS ad
    LEFT JOIN LATERAL (
        SELECT id, created_at FROM moderation_results WHERE item_id = ad.id AND status = 'pending'
        ORDER BY id DESC LIMIT 1
    ) AS pending ON true
    LEFT JOIN LATERAL (
        SELECT id, message_id, generation FROM moderation_results
        WHERE item_id = ad.id AND status = 'completed' ORDER BY id DESC LIMIT 1
    ) AS completed ON true
    LEFT JOIN judgements AS judgement
        ON judgement.message_id = completed.message_id AND judgement.generation = completed.generation
    ORDER BY change.place, ad.id LIMIT :limit
    """
)

# One statement: the ads are handed in, and the search continues behind them.
_FINISH = text(
    """
    WITH done AS (
        DELETE FROM verification_changes WHERE id = ANY (CAST(:done AS bigint[]))
    ), advanced AS (
        UPDATE verification_changes SET done_item_id = :done_item_id, due_at = now() WHERE id = :partial
    ), released AS (
        UPDATE verification_changes SET due_at = now() WHERE id = ANY (CAST(:untouched AS bigint[]))
    )
    INSERT INTO moderation_results (item_id, client_id)
    SELECT id, client_of_ad(id) FROM unnest(CAST(:stale AS bigint[])) AS stale (id) JOIN items USING (id)
    ORDER BY id
    """
)


def claim_changes(connection: Connection, *, limit: int, lease_s: float) -> list[VerificationChange]:
    """Take up to ``limit`` changes, the longest due first, and lease them to the caller for ``lease_s``."""
    rows = connection.execute(_CLAIM, {"limit": limit, "lease_s": lease_s})
    return sorted((VerificationChange(*tuple(row)) for row in rows), key=lambda one: one.change_id)


def check_ads(connection: Connection, changes: Sequence[VerificationChange], *, limit: int) -> Checked:
    """Check up to ``limit`` ads of the sellers. An ad is stale when its newest verdict is of other content.

    An ad without a verdict is stale when a worker may have read it before the change.
    """
    # The newest change of a seller begins at the first ad, and makes the search of an earlier one needless.
    newest = {one.seller_id: one for one in changes}
    current = list(newest.values())
    rows = connection.execute(
        _READ,
        {
            "limit": limit,
            "change_ids": [one.change_id for one in current],
            "seller_ids": [one.seller_id for one in current],
            "changed_ats": [one.changed_at for one in current],
            "noticed_ats": [one.noticed_at for one in current],
            "done_item_ids": [one.done_item_id for one in current],
        },
    ).all()
    stale: set[int] = set()
    for row in rows:
        pending_id, completed_id = row.pending_id or 0, row.completed_id or 0
        if row.is_fresh or not (pending_id or completed_id):
            continue
        if pending_id > completed_id or ad_hash(cast(AdFields, row)) != row.scored_hash:
            stale.add(row.item_id)
    superseded = [one.change_id for one in changes if one is not newest[one.seller_id]]
    if len(rows) < limit:
        return Checked((*superseded, *(one.change_id for one in current)), None, tuple(sorted(stale)))
    last = rows[-1]
    place = [one.change_id for one in current].index(last.change_id)
    done = (*superseded, *(one.change_id for one in current[:place]))
    return Checked(done, (last.change_id, last.item_id), tuple(sorted(stale)))


def finish(connection: Connection, changes: Sequence[VerificationChange], checked: Checked) -> None:
    """Hand the stale ads in, delete the completed changes, and end the leases of the others."""
    partial, done_item_id = checked.partial or (0, 0)
    finished = {*checked.done, partial}
    connection.execute(
        _FINISH,
        {
            "done": list(checked.done),
            "partial": partial,
            "done_item_id": done_item_id,
            "untouched": [one.change_id for one in changes if one.change_id not in finished],
            "stale": list(checked.stale),
        },
    )
