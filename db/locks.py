"""Waiting for locks: a moment, because other work waits meanwhile.

Anybody's transaction can hold a lock for minutes: a forgotten ``BEGIN`` in psql does. A statement behind
:data:`BRIEFLY` gives up after :data:`LOCK_TIMEOUT_MS` with ``RowLocked``, for a locked table as for a row.
"""

#: Longer than a transaction of the product holds a lock.
LOCK_TIMEOUT_MS = 200

#: SQL in front of a statement. Both are sent in one message, without a further round trip, and are one
#: transaction, also where each statement is committed by itself; the limit holds until its end. A part of the
#: statement could not set the limit: PostgreSQL locks the tables of a statement before it executes any of it.
BRIEFLY = f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; "
