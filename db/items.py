"""Ads and their sellers."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Row, text

from db.locks import BRIEFLY


class AdFields(Protocol):
    """The attributes that an object needs to be stored as an ad."""

    @property
    def item_id(self) -> int: ...
    @property
    def seller_id(self) -> int: ...
    @property
    def is_verified_seller(self) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def category(self) -> int: ...
    @property
    def images_qty(self) -> int: ...


_READ = text(
    """
    SELECT items.id AS item_id, seller_id, is_verified_seller, name, description, category, images_qty
    FROM items JOIN users ON users.id = items.seller_id
    WHERE items.id = ANY (CAST(:item_ids AS bigint[]))
    """
)

_UPSERT_SELLERS = text(
    f"""{BRIEFLY}
    INSERT INTO users AS seller (id, is_verified_seller)
    SELECT id, is_verified
    FROM unnest(CAST(:ids AS bigint[]), CAST(:verified AS boolean[])) AS given (id, is_verified)
    ON CONFLICT (id) DO UPDATE SET is_verified_seller = excluded.is_verified_seller
    WHERE seller.is_verified_seller <> excluded.is_verified_seller
    RETURNING id, xmax = 0 AS is_new
    """
)

# As the trigger does that sees the edits of an ad itself, see migrations V08 and V10.
_SUBMIT_AGAIN = text(
    """
    INSERT INTO moderation_results (item_id, client_id)
    SELECT id, client_of_ad(id) FROM unnest(CAST(:ids AS bigint[])) AS edited (id)
    WHERE EXISTS (
        SELECT FROM moderation_results AS row
        WHERE row.item_id = edited.id AND row.status IN ('pending', 'completed')
    )
    ORDER BY id
    """
)

_READ_VERSIONS = text(
    """
    SELECT item_id, seller_id, false AS is_verified_seller, name, description, category, images_qty
    FROM ad_versions WHERE item_id = :item_id ORDER BY replaced_at DESC, digest
    """
)

# An inserted row was updated by no transaction: its xmax is 0.
_UPSERT_ADS = text(
    """
    INSERT INTO items (id, seller_id, name, description, category, images_qty)
    SELECT * FROM unnest(
        CAST(:ids AS bigint[]), CAST(:seller_ids AS bigint[]), CAST(:names AS text[]),
        CAST(:descriptions AS text[]), CAST(:categories AS integer[]), CAST(:images_qtys AS integer[])
    )
    ON CONFLICT (id) DO UPDATE
    SET seller_id = excluded.seller_id, name = excluded.name, description = excluded.description,
        category = excluded.category, images_qty = excluded.images_qty
    RETURNING id, xmax = 0 AS is_new
    """
)

#: The sequences follow given ids up to this one. They can therefore not be moved to their end, where every
#: plain INSERT would fail. As many numbers again remain that a double, as which JavaScript reads a JSON
#: number, represents exactly.
HIGHEST_FOLLOWED_ID = 2**52

# Only forward: other transactions may have taken numbers whose rows are not visible yet.
_ADVANCE_SEQUENCE = {
    table: text(
        f"""
        SELECT setval(pg_get_serial_sequence('{table}', 'id'), highest)
        FROM (SELECT max(id) AS highest FROM {table} WHERE id <= {HIGHEST_FOLLOWED_ID}) AS given
        WHERE highest > COALESCE(pg_sequence_last_value(pg_get_serial_sequence('{table}', 'id')), 0)
        """
    )
    for table in ("users", "items")
}


def read_ads(connection: Connection, item_ids: Iterable[int]) -> dict[int, Row[*tuple[Any, ...]]]:
    """Return the ads that exist, by id, as rows with the fields of :class:`AdFields`."""
    rows = connection.execute(_READ, {"item_ids": list(item_ids)})
    return {row[0]: row for row in rows}


def ad_hash(ad: AdFields) -> str:
    """Return a hash of everything that is scored: SHA-256 in hexadecimal digits. Ids are not scored."""
    scored = [ad.is_verified_seller, ad.name, ad.description, ad.category, ad.images_qty]
    return hashlib.sha256(json.dumps(scored).encode()).hexdigest()


def read_versions(connection: Connection, item_id: int) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the ad as it was before each edit since its first submission, newest first.

    The rows have the fields of :class:`AdFields`. The seller is not kept: ``is_verified_seller`` is false.
    """
    return connection.execute(_READ_VERSIONS, {"item_id": item_id}).all()


def load_ads(connection: Connection, ads: Sequence[AdFields]) -> set[int]:
    """Insert or overwrite the ads and their sellers. No ad may occur twice.

    An ad that has or awaits a verdict is submitted again when what is scored changes.

    Returns:
      The ids of the new ads.

    Raises:
      RowLocked: Another transaction keeps an ad or a seller locked. Nothing was written.
    """
    # Sorted, so that two loads lock their common rows in the same order.
    sellers = sorted({ad.seller_id: ad.is_verified_seller for ad in ads}.items())
    rows = connection.execute(
        _UPSERT_SELLERS, {"ids": [seller for seller, _ in sellers], "verified": [flag for _, flag in sellers]}
    )
    changed = {row.id for row in rows if not row.is_new}
    ordered = sorted(ads, key=lambda ad: ad.item_id)
    rows = connection.execute(
        _UPSERT_ADS,
        {
            "ids": [ad.item_id for ad in ordered],
            "seller_ids": [ad.seller_id for ad in ordered],
            "names": [ad.name for ad in ordered],
            "descriptions": [ad.description for ad in ordered],
            "categories": [ad.category for ad in ordered],
            "images_qtys": [ad.images_qty for ad in ordered],
        },
    )
    created = {row.id for row in rows if row.is_new}
    if changed:
        edited = [ad.item_id for ad in ordered if ad.seller_id in changed and ad.item_id not in created]
        connection.execute(_SUBMIT_AGAIN, {"ids": edited})
    _advance_sequences(connection)
    return created


def _advance_sequences(connection: Connection) -> None:
    """Advance the identity sequences past the given ids, which a plain INSERT would otherwise repeat.

    Higher ids than :data:`HIGHEST_FOLLOWED_ID` are ignored: the sequences do not get there.
    """
    for table in ("users", "items"):
        connection.execute(_ADVANCE_SEQUENCE[table])
