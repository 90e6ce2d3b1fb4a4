"""PostgreSQL as one process uses it: one pool of connections, and one log line for each outage."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, text

from db.engine import autocommitting, make_engine, transaction
from db.errors import DatabaseUnavailable, RowUnreadable, TransactionLost
from db.in_loop import LoopConnections, make_loop_connections
from db.outcome_notifications import OutcomeListener, with_outcome
from db.schema import missing
from settings import Settings
from submissions.outage_log import OutageLog

logger = logging.getLogger(__name__)


class Database:
    """The database that the settings name. Making one connects to nothing. Thread-safe.

    Parameters:
      lock_timeout_s: A statement waits for a lock no longer; None for as long as for anything else.
    """

    def __init__(self, settings: Settings, *, lock_timeout_s: float | None = None) -> None:
        self._settings = settings
        self._lock_timeout_s = lock_timeout_s
        self._engine = make_engine(
            settings.database_url,
            pool_size=settings.database_pool_size,
            connect_timeout_s=settings.database_connect_timeout_s,
            statement_timeout_s=settings.database_statement_timeout_s,
            lock_timeout_s=lock_timeout_s,
        )
        # The same pool: only the transactions differ.
        self._autocommitting = autocommitting(self._engine)
        self._outages = OutageLog("PostgreSQL", logger)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open one transaction, and log outages.

        Raises:
          DatabaseError: As ``db.engine.transaction`` does.
        """
        with self.log_outages(), transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def statements(self) -> Iterator[Connection]:
        """Give a connection on which PostgreSQL commits each statement by itself.

        A statement costs one round trip, and no lock is held while this process is busy, stopped or frozen.

        Raises:
          DatabaseError: As ``db.engine.transaction`` does.
        """
        with self.log_outages(), transaction(self._autocommitting) as connection:
            yield connection

    @contextmanager
    def log_outages(self) -> Iterator[None]:
        """Log, once, that PostgreSQL became unreachable or answers again, by the result of this block."""
        asked_at_s = time.monotonic()
        try:
            yield
        except (TransactionLost, RowUnreadable):
            self._outages.came_back()  # it answered
            raise
        except DatabaseUnavailable as error:
            self._outages.went_away(error, asked_at_s=asked_at_s)
            raise
        self._outages.came_back()

    def ping(self) -> None:
        """Ask PostgreSQL for a sign of life.

        Raises:
          DatabaseError: PostgreSQL gives none.
        """
        with self.statements() as connection:
            connection.execute(text("SELECT 1"))

    def missing_schema(self) -> list[str]:
        """Return the tables and columns that the migrations have not created yet.

        Raises:
          DatabaseUnavailable: PostgreSQL cannot be asked.
        """
        with self.log_outages():
            return missing(self._engine)

    def make_loop_connections(self) -> LoopConnections:
        """Make the connections of one event loop. Use them within :meth:`log_outages`."""
        return make_loop_connections(
            self._settings.database_url,
            connect_timeout_s=self._settings.database_connect_timeout_s,
            statement_timeout_s=self._settings.database_statement_timeout_s,
            lock_timeout_s=self._lock_timeout_s,
        )

    def listen_for_outcomes(self) -> OutcomeListener:
        """Open a connection of its own that listens for outcomes. Blocks.

        Raises:
          DatabaseError: It cannot connect.
          SessionsAreShared: A pooler is between, and not in session mode.
        """
        return OutcomeListener(self._engine)

    def with_outcome(self, task_ids: Sequence[int]) -> list[int]:
        """Return those of the submissions that are not pending. Blocks.

        Raises:
          DatabaseError: PostgreSQL cannot be asked.
        """
        with self.statements() as connection:
            return with_outcome(connection, task_ids)
