"""Waiting for locks: a moment, because other work waits meanwhile.

Anybody's transaction can hold a lock for minutes: a forgotten ``BEGIN`` in psql does. A statement that starts
with :data:`BRIEFLY` and reads from ``briefly`` gives up after :data:`LOCK_TIMEOUT_MS` with ``RowLocked``.
"""

#: Longer than a transaction of the product holds a lock.
LOCK_TIMEOUT_MS = 200

#: The first table of a WITH clause. The limit holds until the end of the transaction. It is in force before
#: the first lock, since rows are read before they are locked.
BRIEFLY = f"""briefly AS MATERIALIZED (
        SELECT set_config('lock_timeout', '{LOCK_TIMEOUT_MS}ms', true) AS lock_timeout
    )"""
