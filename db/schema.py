"""The tables and columns that the statements need, compared with those of the database."""

from sqlalchemy import Engine, text

from db.engine import transaction
from db.tables import metadata

_COLUMNS = text(
    """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = ANY (current_schemas(false)) AND table_name = ANY (:tables)
    """
)


def missing(engine: Engine) -> list[str]:
    """Return the missing tables, and the missing columns of existing tables as ``table.column``.

    Raises:
      DatabaseUnavailable: PostgreSQL cannot be asked.
    """
    with transaction(engine) as connection:
        rows = connection.execute(_COLUMNS, {"tables": list(metadata.tables)}).all()
    present = {(row.table_name, row.column_name) for row in rows}
    tables_present = {table for table, _ in present}
    absent = [name for name in metadata.tables if name not in tables_present]
    absent += [
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        if table.name in tables_present
        for column in table.columns
        if (table.name, column.name) not in present
    ]
    return absent
