"""Storing and reading ads. Each call blocks and uses one transaction."""

from collections.abc import Sequence

from db import audit, items
from db.audit import Change
from db.items import AdFields
from submissions.callers import ANYBODY, Caller
from submissions.database import Database


class AdStore:
    """The stored ads. Every method raises DatabaseError when PostgreSQL fails. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, item_ids: list[int]) -> Sequence[AdFields | None]:
        """Return the ad of each id; None for an unknown one."""
        with self._database.transaction() as connection:
            found = items.read_ads(connection, item_ids)
        return [found.get(item_id) for item_id in item_ids]

    def store(self, ads: Sequence[AdFields], caller: Caller = ANYBODY) -> set[int]:
        """Insert or overwrite the ads and their sellers; return the ids of the new ads."""
        with self._database.transaction() as connection:
            created = items.load_ads(connection, ads)
            if caller.key_id:
                item_ids = sorted(ad.item_id for ad in ads)
                audit.record(
                    connection, Change("store_ads", caller.key_id, caller.client_id, item_ids=item_ids)
                )
            return created
