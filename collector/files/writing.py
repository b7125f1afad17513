"""From the store into files that other tools read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from uuid import UUID

import duckdb

from spanproof.collector.encode import export_requests
from spanproof.collector.failures import Unusable
from spanproof.collector.files.messages import write_delimited
from spanproof.collector.otlp_json import dump_json, render_message

if TYPE_CHECKING:
    from spanproof.collector.store import Store


class Target(StrEnum):
    """What a file may become."""

    OTLP_JSON = "otlp-json"
    OTLP_PROTO = "otlp-proto"
    PARQUET = "parquet"


ENDINGS: Final = {
    ".json": Target.OTLP_JSON,
    ".jsonl": Target.OTLP_JSON,
    ".ndjson": Target.OTLP_JSON,
    ".pb": Target.OTLP_PROTO,
    ".binpb": Target.OTLP_PROTO,
    ".parquet": Target.PARQUET,
}


class Unwritable(Unusable):
    """A file that cannot be written; the message says why."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    spans: int
    traces: int


def find_target(path: Path) -> Target:
    """Tell from a name what the file is to be, or raise Unwritable."""
    if path.suffix not in ENDINGS:
        raise Unwritable(f"{path}: of which format? Name it with --format, or by one of {', '.join(ENDINGS)}")
    return ENDINGS[path.suffix]


def export_file(
    store: Store, path: Path, target: Target, trace_ids: Sequence[UUID] = (), *, overwrite: bool = False
) -> Exported:
    """Write these traces, or all, to a file that appears once it is whole. Raises Unwritable."""
    if path.exists() and not path.is_file():
        raise Unwritable(f"{path} is no file")
    if path.exists() and not overwrite:
        raise Unwritable(f"{path} exists; --force replaces it")
    path = path.resolve()  # a link stays one
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _choose(store, trace_ids) as (cursor, exported):
            if target is Target.PARQUET:
                cursor.execute("COPY (FROM spans_to_export) TO ? (FORMAT parquet, COMPRESSION zstd)", [str(part)])
            else:
                with part.open("xb") as stream:
                    _write(cursor, stream, target, trace_ids)
            part.replace(path)
    except (OSError, duckdb.IOException) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise Unwritable(f"{path} cannot be written: {reason}") from error
    finally:
        part.unlink(missing_ok=True)
    return exported


def export_stream(store: Store, stream: IO[bytes], target: Target, trace_ids: Sequence[UUID] = ()) -> Exported:
    """Write these traces, or all, to a stream. Raises Unwritable."""
    if target is Target.PARQUET:
        raise Unwritable("Parquet cannot be written to standard output; name a file")
    with _choose(store, trace_ids) as (cursor, exported):
        _write(cursor, stream, target, trace_ids)
    return exported


@contextmanager
def _choose(store: Store, trace_ids: Sequence[UUID]) -> Iterator[tuple[duckdb.DuckDBPyConnection, Exported]]:
    """Give a cursor whose table `exported` holds the ids of the traces to write, each of which must be there."""
    with store.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TEMP TABLE exported (trace_id UUID)")
        if trace_ids:
            cursor.execute("INSERT INTO exported SELECT DISTINCT unnest(?::UUID[])", [list(trace_ids)])
            for (missing,) in cursor.execute("FROM exported ANTI JOIN spans USING (trace_id)").fetchall():
                raise Unwritable(f"no span of trace {missing.hex} is stored")
        else:
            cursor.execute("INSERT INTO exported SELECT DISTINCT trace_id FROM spans")
        cursor.execute(
            resources.files("spanproof.collector").joinpath("sql", "parquet.sql").read_text(encoding="utf-8")
        )
        count = cursor.execute(
            "SELECT count(*), count(DISTINCT trace_id) FROM spans WHERE trace_id IN (FROM exported)"
        ).fetchall()
        yield cursor, Exported(*count[0])


def _write(cursor: duckdb.DuckDBPyConnection, stream: IO[bytes], target: Target, trace_ids: Sequence[UUID]) -> None:
    for request in export_requests(cursor, trace_ids or None):
        if target is Target.OTLP_JSON:
            stream.write(dump_json(render_message(request)).encode() + b"\n")
        else:
            write_delimited(stream, request.SerializeToString())
