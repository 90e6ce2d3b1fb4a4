"""What can go wrong between this program and PostgreSQL, and whether another attempt is worth it.

::

    DatabaseError
    ├── DatabaseUnavailable      temporary: the same call may well succeed later
    │   ├── DatabaseAway         no connection (also a ConnectionError)
    │   ├── DatabaseBusy         a deadline, no free connection (also a TimeoutError)
    │   │   └── TransactionLost  a deadlock: this transaction gave way to another; PostgreSQL is well
    │   └── SchemaMissing        a table or a column is not there: the migrations are to be applied
    └── DatabaseRefused          permanent: PostgreSQL will never take this statement with this data

The temporary ones are built-in ``ConnectionError`` or ``TimeoutError`` too, so that a retry policy which
knows only those needs no list of ours.
"""

from typing import Any

import psycopg2
from sqlalchemy import exc


class DatabaseError(Exception):
    """Base of everything that `db` raises about PostgreSQL."""


class DatabaseUnavailable(DatabaseError):
    """PostgreSQL cannot do it now; nothing says that it will not later."""


class DatabaseAway(DatabaseUnavailable, ConnectionError):
    """No connection to PostgreSQL, or it broke. Whether a COMMIT under way happened is then unknown."""


class DatabaseBusy(DatabaseUnavailable, TimeoutError):
    """PostgreSQL answered, but not in time or not now: a deadline, too many connections, a deadlock."""


class TransactionLost(DatabaseBusy):
    """The transaction gave way to another, as in a deadlock. Nothing is wrong with PostgreSQL."""


class SchemaMissing(DatabaseUnavailable, ConnectionError):
    """A table or a column is missing: the migrations were not applied, or not all of them."""


class DatabaseRefused(DatabaseError):
    """PostgreSQL, or its driver, will never take this statement with this data."""


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
    "28",  # invalid_authorization_specification: the operator's to mend, not the data's fault
    "3D",  # invalid_catalog_name: the database does not exist (yet)
    "57",  # operator_intervention, as when PostgreSQL shuts down
}
_LOST = "40"  # transaction_rollback: deadlock_detected, serialization_failure
_STATEMENT_CANCELED = "57014"  # of class 57, but it is statement_timeout speaking


def from_sqlalchemy(error: exc.SQLAlchemyError) -> DatabaseError:
    """Say in this package's words what SQLAlchemy reports; the text is PostgreSQL's first line, no SQL."""
    if isinstance(error, exc.TimeoutError):
        return DatabaseBusy("no connection of the pool became free in time")
    if not isinstance(error, exc.DBAPIError):
        return DatabaseRefused(_first_line(error))
    connection_lost = error.connection_invalidated or isinstance(
        error, exc.OperationalError | exc.InterfaceError
    )
    return _told_apart(error.orig or error, connection_lost=connection_lost)


def from_driver(error: psycopg2.Error) -> DatabaseError:
    """The same of what psycopg2 reports."""
    connection_lost = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    return _told_apart(error, connection_lost=connection_lost)


def _told_apart(error: Any, *, connection_lost: bool) -> DatabaseError:
    code = getattr(error, "pgcode", None)
    text = _first_line(error)
    if code in _SCHEMA_MISSING:
        return SchemaMissing(f"the migrations are not applied: {text}")
    if code is None:
        # libpq lost or never had a connection, or the driver refused a value.
        return DatabaseAway(text) if connection_lost else DatabaseRefused(text)
    if code != _STATEMENT_CANCELED and code[:2] in _AWAY:
        return DatabaseAway(text)
    if code[:2] in _NEVER:
        return DatabaseRefused(text)
    return TransactionLost(text) if code[:2] == _LOST else DatabaseBusy(text)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
