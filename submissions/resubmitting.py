"""Handing ads in again whose verdict became stale with a change of their seller's verification."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from db import verification
from db.errors import DatabaseUnavailable

#: Sellers and ads in one batch: statements of some ten milliseconds.
MAX_CHANGES = 100
MAX_ADS = 200
#: The time in which only the process that took changes works on them. A batch takes a fraction of a second.
LEASE_S = 30.0


class Resubmitter:
    """Hands in stale ads, one batch an interval: live submissions wait behind one batch at most.

    Parameters:
      statements: Gives a connection on which PostgreSQL commits each statement by itself.
      interval_s: The time between two batches of this process.
    """

    def __init__(
        self, statements: Callable[[], AbstractContextManager[Connection]], *, interval_s: float
    ) -> None:
        self._statements = statements
        self._interval_s = interval_s
        self._due_at_s = time.monotonic()

    def resubmit(self) -> None:
        """Check up to :data:`MAX_ADS` ads, once an interval, and insert submissions of the stale ones.

        A relay publishes them. An unavailable PostgreSQL raises nothing: the changes are still noted.
        """
        if time.monotonic() < self._due_at_s:
            return
        self._due_at_s = time.monotonic() + self._interval_s
        try:
            with self._statements() as connection:
                changes = verification.claim_changes(connection, limit=MAX_CHANGES, lease_s=LEASE_S)
                if changes:
                    checked = verification.check_ads(connection, changes, limit=MAX_ADS)
                    verification.finish(connection, changes, checked)
        except DatabaseUnavailable:  # Database has logged it
            return
