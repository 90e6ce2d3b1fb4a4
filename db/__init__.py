"""PostgreSQL: the engine, the tables and every SQL statement. Independent of Kafka, HTTP and the settings.

Open a :func:`db.engine.transaction` and pass its connection to the functions of ``db.items``,
``db.submissions``, ``db.outbox``, ``db.redrive`` and ``db.history``. Failures are raised as the errors of
``db.errors``.
"""
