"""Export from the store into files that other tools read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeAlias
from uuid import UUID

import duckdb
from msgspec import Struct

from spanproof.collector.formats.otlp_protobuf import write_delimited
from spanproof.collector.otlp.json_mapping import dump_json, render_message
from spanproof.collector.storage.span_reader import read_requests
from spanproof.collector.user_errors import UserError

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

    from spanproof.collector.storage.interface import SpanStore


class ExportFormat(StrEnum):
    """Formats of exported files."""

    OTLP_JSON = "otlp-json"
    OTLP_PROTO = "otlp-proto"
    PARQUET = "parquet"
    CASE = "case"


EXPORT_FORMATS_BY_SUFFIX: Final = {
    ".json": ExportFormat.OTLP_JSON,
    ".jsonl": ExportFormat.OTLP_JSON,
    ".ndjson": ExportFormat.OTLP_JSON,
    ".pb": ExportFormat.OTLP_PROTO,
    ".binpb": ExportFormat.OTLP_PROTO,
    ".parquet": ExportFormat.PARQUET,
    ".case": ExportFormat.CASE,
}


FormatCase: TypeAlias = "Callable[[Iterable[TracesData]], str]"


class UnwritableFile(UserError):
    """A file that cannot be written; the message says why."""


class ExportSummary(Struct, frozen=True):
    """Numbers of exported spans and traces."""

    spans: int
    traces: int


def detect_export_format(path: Path) -> ExportFormat:
    """Return the format for the suffix of a file name. Raise UnwritableFile."""
    if path.suffix not in EXPORT_FORMATS_BY_SUFFIX:
        raise UnwritableFile(
            f"{path}: unknown format; use --format, or a suffix among {', '.join(EXPORT_FORMATS_BY_SUFFIX)}"
        )
    return EXPORT_FORMATS_BY_SUFFIX[path.suffix]


def export_file(
    store: SpanStore,
    path: Path,
    target: ExportFormat,
    trace_ids: Sequence[UUID] = (),
    *,
    overwrite: bool = False,
    format_case: FormatCase | None = None,
) -> ExportSummary:
    """Write these traces, or all, to a file that appears once it is complete. Raise UnwritableFile.

    `format_case` writes the text of a case file, which this package does not know.
    """
    if path.exists() and not path.is_file():
        raise UnwritableFile(f"{path} is not a file")
    if path.exists() and not overwrite:
        raise UnwritableFile(f"{path} exists; --force replaces it")
    path = path.resolve()  # replaces the target of a symbolic link, not the link
    part_path = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _select_traces(store, trace_ids) as (cursor, summary):
            if target is ExportFormat.PARQUET:
                cursor.execute("COPY (FROM spans_to_export) TO ? (FORMAT parquet, COMPRESSION zstd)", [str(part_path)])
            else:
                with part_path.open("xb") as stream:
                    _write_requests(cursor, stream, target, trace_ids, format_case)
            part_path.replace(path)
    except (OSError, duckdb.IOException) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UnwritableFile(f"{path} cannot be written: {reason}") from error
    finally:
        part_path.unlink(missing_ok=True)
    return summary


def export_stream(
    store: SpanStore,
    stream: IO[bytes],
    target: ExportFormat,
    trace_ids: Sequence[UUID] = (),
    format_case: FormatCase | None = None,
) -> ExportSummary:
    """Write these traces, or all, to a stream. Raise UnwritableFile."""
    if target is ExportFormat.PARQUET:
        raise UnwritableFile("Parquet cannot be written to standard output; name a file")
    with _select_traces(store, trace_ids) as (cursor, summary):
        _write_requests(cursor, stream, target, trace_ids, format_case)
    return summary


@contextmanager
def _select_traces(
    store: SpanStore, trace_ids: Sequence[UUID]
) -> Iterator[tuple[duckdb.DuckDBPyConnection, ExportSummary]]:
    """Yield a cursor whose table `exported` has the ids of the traces to write, each of which must be stored."""
    with store.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TEMP TABLE exported (trace_id UUID)")
        if trace_ids:
            cursor.execute("INSERT INTO exported SELECT DISTINCT unnest(?::UUID[])", [list(trace_ids)])
            for (missing,) in cursor.execute("FROM exported ANTI JOIN spans USING (trace_id)").fetchall():
                raise UnwritableFile(f"no span of trace {missing.hex} is stored")
        else:
            cursor.execute("INSERT INTO exported SELECT DISTINCT trace_id FROM spans")
        cursor.execute(
            resources.files("spanproof.collector.formats").joinpath("sql", "parquet.sql").read_text(encoding="utf-8")
        )
        counts = cursor.execute(
            "SELECT count(*), count(DISTINCT trace_id) FROM spans WHERE trace_id IN (FROM exported)"
        ).fetchall()
        yield cursor, ExportSummary(*counts[0])


def _write_requests(
    cursor: duckdb.DuckDBPyConnection,
    stream: IO[bytes],
    target: ExportFormat,
    trace_ids: Sequence[UUID],
    format_case: FormatCase | None,
) -> None:
    if target is ExportFormat.CASE:
        if format_case is None or not trace_ids:
            raise UnwritableFile("a case file has single traces; select them with --trace")
        stream.write(format_case(read_requests(cursor, trace_ids)).encode())
        return
    for request in read_requests(cursor, trace_ids or None):
        if target is ExportFormat.OTLP_JSON:
            stream.write(dump_json(render_message(request)).encode() + b"\n")
        else:
            write_delimited(stream, request.SerializeToString())
