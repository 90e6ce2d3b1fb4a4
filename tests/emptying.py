"""Empties the database between two tests. It imports nothing of the service, which the wheel's tests lack."""

from sqlalchemy import Engine, text


def empty(engine: Engine) -> None:
    """Delete all rows; identities start at 1 again."""
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        tables = ", ".join(f'"{name}"' for (name,) in rows if "yoyo" not in name)
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
