"""Storing and reading ads. Each call blocks and uses one transaction."""

from collections.abc import Sequence

from db import items
from db.items import AdFields
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

    def store(self, ads: Sequence[AdFields]) -> set[int]:
        """Insert or overwrite the ads and their sellers; return the ids of the new ads."""
        with self._database.transaction() as connection:
            return items.load_ads(connection, ads)
