"""``spanproof import`` and ``spanproof export``: trace files into a store and out of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from spanproof.api.cli.command_app import Database, make_command_app
from spanproof.api.cli.exits import exit_with_error, read_choice, require_file

if TYPE_CHECKING:
    from uuid import UUID

    from spanproof.collector.formats.export_file import ExportFormat, ExportSummary
    from spanproof.collector.formats.read_file import ImportFormat
    from spanproof.collector.storage.store import Store

EXIT_REJECTED: Final = 2
STANDARD_OUTPUT: Final = "-"

import_app = make_command_app()
export_app = make_command_app()


@import_app.command(
    name="import",
    short_help="Store the spans of files.",
    epilog="Example: spanproof import traces/*.json --db spans.duckdb",
)
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="OTLP (JSON or protobuf), Jaeger or Zipkin files; also gzip."),
    ],
    *,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="otlp-json|otlp-proto|jaeger|zipkin", help="The format; the default detects it."
        ),
    ] = None,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Ignore fields that the format does not define, and report each once.")
    ] = False,
    db: Database = "spanproof.duckdb",
) -> None:
    """Store the spans of files; a file is stored as a whole or not at all."""
    from spanproof.collector.formats.read_file import ImportFormat

    declared_format = None if file_format is None else read_choice("--format", file_format, ImportFormat)
    sys.exit(import_files(files, db, declared_format, typer.echo, lenient=lenient))


@export_app.command(
    short_help="Write stored spans to a file.",
    epilog="Example: spanproof export failing.jsonl --trace 4bf92f3577b34da6a3ce929d0e0e4736 --db spans.duckdb",
)
def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A .jsonl, .pb, .parquet or .case file; - is standard output.")
    ],
    *,
    trace_ids: Annotated[
        list[str] | None, typer.Option("--trace", metavar="ID", help="Only this trace; may be repeated.")
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="otlp-json|otlp-proto|parquet|case", help="The format, whatever the file's suffix."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    db: Database = "spanproof.duckdb",
) -> None:
    """Write stored spans to a file: OTLP as JSON lines or length-delimited protobuf, Parquet, or a case."""
    from spanproof.collector.formats.export_file import ExportFormat
    from spanproof.collector.otlp.encoder import parse_trace_id

    declared_format = None if file_format is None else read_choice("--format", file_format, ExportFormat)
    try:
        selected = [parse_trace_id(trace_id) for trace_id in trace_ids or []]
    except ValueError as error:
        exit_with_error(f"--trace: {error}")
    require_file(db)
    typer.echo(export_spans(file, db, declared_format, selected, overwrite=force), err=True)


def import_files(
    paths: Sequence[Path],
    db: str,
    file_format: ImportFormat | None,
    echo: Callable[..., None],
    *,
    lenient: bool = False,
) -> int:
    """Store the spans of files; a rejected file does not affect the others. Return the exit code."""
    from spanproof.collector.formats.import_file import import_file
    from spanproof.collector.formats.json_documents import UnreadableFile
    from spanproof.collector.storage.store import Store

    rejected = False
    with Store.open(db) as store:
        for path in paths:
            try:
                imported = import_file(store, path, file_format, lenient=lenient)
            except UnreadableFile as error:
                rejected = True
                echo(f"spanproof: {error}; nothing of it is stored", err=True)
            else:
                skipped = imported.log.format_skipped()
                echo(f"{path}: {_format_counts(imported.spans, imported.traces)}{skipped}")
                for warning in imported.log.list_warnings():
                    echo(f"spanproof: {path}: {warning}", err=True)
    return EXIT_REJECTED if rejected else 0


def export_spans(
    file: str, db: str, file_format: ExportFormat | None, trace_ids: Sequence[UUID], *, overwrite: bool
) -> str:
    """Write these stored traces, or all, to a file or to standard output; return a summary."""
    from spanproof.assertions.cases.case_writer import format_case
    from spanproof.collector.formats.export_file import ExportFormat as Format
    from spanproof.collector.formats.export_file import UnwritableFile, detect_export_format, export_file
    from spanproof.collector.storage.store import Store

    path = Path(file)
    if path.exists() and path.samefile(db):
        raise UnwritableFile(f"{file} is the store itself; name another file")
    with Store.open(db) as store:
        if file == STANDARD_OUTPUT:
            exported = _write_to_stdout(store, file_format or Format.OTLP_JSON, trace_ids)
        else:
            exported = export_file(
                store,
                path,
                file_format or detect_export_format(path),
                trace_ids,
                overwrite=overwrite,
                format_case=format_case,
            )
    target = "standard output" if file == STANDARD_OUTPUT else file
    return f"{target}: {_format_counts(exported.spans, exported.traces)}"


def _format_counts(spans: int, traces: int) -> str:
    from spanproof.assertions.explain.text_formatting import format_count

    return f"{format_count(spans, 'span')} of {format_count(traces, 'trace')}"


def _write_to_stdout(store: Store, target: ExportFormat, trace_ids: Sequence[UUID]) -> ExportSummary:
    from spanproof.assertions.cases.case_writer import format_case
    from spanproof.collector.formats.export_file import UnwritableFile, export_stream

    try:
        exported = export_stream(store, sys.stdout.buffer, target, trace_ids, format_case)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe; Python would report that again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UnwritableFile("standard output was closed before all was written") from None
    return exported
