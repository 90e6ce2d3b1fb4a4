"""The errors of PostgreSQL, divided into temporary and permanent ones.

::

    DatabaseError
    ├── DatabaseUnavailable      temporary: the same call may well succeed later
    │   ├── DatabaseAway         no connection (also a ConnectionError)
    │   ├── DatabaseBusy         a deadline, no free connection (also a TimeoutError)
    │   │   └── TransactionLost  a deadlock: this transaction was rolled back for another; PostgreSQL works
    │   │       └── RowLocked    another transaction holds a lock for longer than a moment
    │   ├── SchemaMissing        a table or a column is missing: apply the migrations
    │   └── RowUnreadable        Python cannot hold a value of a row: mend the row. PostgreSQL works
    └── DatabaseRefused          permanent: PostgreSQL will never accept this statement with this data

The temporary errors are also built-in ``ConnectionError`` or ``TimeoutError``, so a retry policy for those
needs no list of the product's errors.
"""

from typing import Any

import psycopg2
from sqlalchemy import exc


class DatabaseError(Exception):
    """The base of all errors that `db` raises about PostgreSQL."""


class DatabaseUnavailable(DatabaseError):
    """PostgreSQL cannot execute the statement now, and may do so later."""


class DatabaseAway(DatabaseUnavailable, ConnectionError):
    """There is no connection to PostgreSQL, or it broke. The result of a running COMMIT is then unknown."""


class DatabaseBusy(DatabaseUnavailable, TimeoutError):
    """PostgreSQL answers, but not in time: a deadline, too many connections, a deadlock."""


class TransactionLost(DatabaseBusy):
    """The transaction was rolled back for another, as in a deadlock. PostgreSQL works."""


class RowLocked(TransactionLost):
    """Another transaction kept a row locked for longer than this statement waits. PostgreSQL works."""


class SchemaMissing(DatabaseUnavailable, ConnectionError):
    """A table or a column is missing: some migrations were not applied."""


class RowUnreadable(DatabaseUnavailable):
    """Python cannot hold a value of a row, such as a time in the year 11000. PostgreSQL works."""


class DatabaseRefused(DatabaseError):
    """PostgreSQL, or its driver, will never accept this statement with this data."""


# https://www.postgresql.org/docs/15/errcodes-appendix.html
_SCHEMA_MISSING = {"42P01", "42703"}  # undefined_table, undefined_column
_NEVER = {
    "0A",  # feature_not_supported
    "21",  # cardinality_violation: one row named twice in one upsert
    "22",  # data_exception
    "23",  # integrity_constraint_violation
    "42",  # syntax_error_or_access_rule_violation
    "54",  # program_limit_exceeded, as by a key that is too long for its index
}
_AWAY = {
    "08",  # connection_exception
    "28",  # invalid_authorization_specification: an error of the configuration, not of the data
    "3D",  # invalid_catalog_name: the database does not exist (yet)
    "57",  # operator_intervention, as when PostgreSQL shuts down
}
_LOST = "40"  # transaction_rollback: deadlock_detected, serialization_failure
_LOCK_TIMEOUT = "55P03"  # lock_not_available
_STATEMENT_CANCELED = "57014"  # of class 57, but statement_timeout raises it


def from_sqlalchemy(error: exc.SQLAlchemyError) -> DatabaseError:
    """Translate an error of SQLAlchemy. The text is the first line of PostgreSQL's message, without SQL."""
    if isinstance(error, exc.TimeoutError):
        return DatabaseBusy("no connection of the pool became free in time")
    if not isinstance(error, exc.DBAPIError):
        return DatabaseRefused(_first_line(error))
    connection_lost = error.connection_invalidated or isinstance(
        error, exc.OperationalError | exc.InterfaceError
    )
    return _classified(error.orig or error, connection_lost=connection_lost)


def from_driver(error: psycopg2.Error) -> DatabaseError:
    """Translate an error of psycopg2."""
    connection_lost = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    return _classified(error, connection_lost=connection_lost)


def _classified(error: Any, *, connection_lost: bool) -> DatabaseError:
    code = getattr(error, "pgcode", None)
    text = _first_line(error)
    if code in _SCHEMA_MISSING:
        return SchemaMissing(f"the migrations are not applied: {text}")
    if code is None:
        # libpq lost or never had a connection, or the driver refused a value.
        return DatabaseAway(text) if connection_lost else DatabaseRefused(text)
    if code != _STATEMENT_CANCELED and code[:2] in _AWAY:
        return DatabaseAway(text)
    if code == _LOCK_TIMEOUT:
        return RowLocked(text)
    if code[:2] in _NEVER:
        return DatabaseRefused(text)
    return TransactionLost(text) if code[:2] == _LOST else DatabaseBusy(text)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
