"""Schema of a store: created in a new file, migrated in an older one, rejected in a newer one."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

from spanproof.collector.user_errors import StoreError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import duckdb

IN_MEMORY_PATH: Final = ":memory:"
# Migration n, in sql/migrations, converts schema n - 1 to schema n.
SCHEMA_VERSION: Final = 11
_OLDEST_SCHEMA_VERSION: Final = 1


def prepare_schema(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    """Create or migrate the schema, in one transaction. Raise StoreError, and then nothing has changed."""
    tables = _list_tables(connection) if path != IN_MEMORY_PATH else set()  # because listing them is slow
    if not tables:
        _execute_scripts(connection, [_read_sql("schema.sql"), "CREATE TABLE meta (schema_version INTEGER NOT NULL)"])
        return
    if "meta" not in tables or "spans" not in tables:
        raise StoreError(f"{path} is a DuckDB database, but not a spanproof store; name another file")
    # all rows are fetched: a result that stays open keeps its transaction, and then no checkpoint is possible
    ((version,),) = connection.execute("SELECT max(schema_version) FROM meta").fetchall()
    if version == SCHEMA_VERSION:
        return
    if version is None or not _OLDEST_SCHEMA_VERSION <= version < SCHEMA_VERSION:
        version_kind, advice = (
            ("a newer", "upgrade spanproof or ") if (version or 0) > SCHEMA_VERSION else ("an unknown", "")
        )
        raise StoreError(
            f"{path} was written by {version_kind} spanproof (schema {version}, this one has {SCHEMA_VERSION}); "
            f"{advice}name another file"
        )
    _execute_scripts(
        connection, [_read_sql("migrations", f"{step:03}.sql") for step in range(version + 1, SCHEMA_VERSION + 1)]
    )


def _list_tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {str(name) for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}


def _execute_scripts(connection: duckdb.DuckDBPyConnection, scripts: list[str]) -> None:
    connection.execute("BEGIN")
    try:
        for script in scripts:
            connection.execute(script)
        connection.execute("DELETE FROM meta")
        connection.execute("INSERT INTO meta VALUES (?)", [SCHEMA_VERSION])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _read_sql(*names: str) -> str:
    folder: Traversable = resources.files("spanproof.collector.storage").joinpath("sql")
    return folder.joinpath(*names).read_text(encoding="utf-8")
