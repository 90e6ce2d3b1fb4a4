"""PostgreSQL: the engine, the tables and every SQL statement. Knows nothing of Kafka, HTTP or the settings.

Open a :func:`db.engine.transaction` and hand its connection to the functions of ``db.items``,
``db.submissions``, ``db.outbox``, ``db.redrive`` and ``db.history``; what goes wrong comes out as one of
``db.errors``.
"""
