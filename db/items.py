"""Ads and their sellers."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Row, func, select
from sqlalchemy.dialects.postgresql import insert

from db.tables import items, users


class AdFields(Protocol):
    """What an ad must have to be stored; any object with these attributes will do."""

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


_READ = select(
    items.c.id.label("item_id"),
    items.c.seller_id,
    users.c.is_verified_seller,
    items.c.name,
    items.c.description,
    items.c.category,
    items.c.images_qty,
).join_from(items, users, users.c.id == items.c.seller_id)


def read_ads(connection: Connection, item_ids: Iterable[int]) -> dict[int, Row[*tuple[Any, ...]]]:
    """Return the ads that exist, by id, as rows with the fields of :class:`AdFields`."""
    rows = connection.execute(_READ.where(items.c.id == func.any(list(item_ids))))
    return {row.item_id: row for row in rows}


def load_ads(connection: Connection, ads: Sequence[AdFields]) -> None:
    """Insert the ads and their sellers; one that is there already is overwritten."""
    if not ads:
        return
    sellers = {ad.seller_id: ad.is_verified_seller for ad in ads}
    users_insert = insert(users)
    connection.execute(
        users_insert.on_conflict_do_update(
            index_elements=[users.c.id],
            set_={"is_verified_seller": users_insert.excluded.is_verified_seller},
        ),
        [
            {"id": seller_id, "is_verified_seller": verified}
            for seller_id, verified in sorted(sellers.items())
        ],
    )
    items_insert = insert(items)
    connection.execute(
        items_insert.on_conflict_do_update(
            index_elements=[items.c.id],
            set_={
                column.name: items_insert.excluded[column.name] for column in items.c if column.name != "id"
            },
        ),
        [
            {
                "id": ad.item_id,
                "seller_id": ad.seller_id,
                "name": ad.name,
                "description": ad.description,
                "category": ad.category,
                "images_qty": ad.images_qty,
            }
            for ad in sorted(ads, key=lambda ad: ad.item_id)
        ],
    )
    _pass_over_given_ids(connection)


def _pass_over_given_ids(connection: Connection) -> None:
    """Given ids do not move the identity sequences; without this a plain INSERT would meet them again."""
    for table in (users, items):
        sequence = func.pg_get_serial_sequence(table.name, "id")
        highest = select(func.max(table.c.id)).scalar_subquery()
        connection.execute(select(func.setval(sequence, highest)))
