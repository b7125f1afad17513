"""The DuckDB file: schema and migrations, ingest queue, commits, reads, telemetry of the store."""
