"""Files of traces, into a store and out of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from spanproof.collector.formats.export_file import (
    ExportFormat,
    ExportSummary,
    UnwritableFile,
    detect_export_format,
    export_file,
    export_stream,
)
from spanproof.collector.formats.import_file import format_skipped, import_file
from spanproof.collector.formats.json_documents import UnreadableFile
from spanproof.collector.formats.read_file import ImportFormat
from spanproof.collector.storage.store import Store

EXIT_REJECTED = 2
STANDARD_OUTPUT = "-"


def import_files(paths: Sequence[Path], db: str, file_format: ImportFormat | None, echo: Callable[..., None]) -> int:
    """Store what files hold; a refused one keeps none of the others out. Return the exit code."""
    refused = False
    with Store.open(db) as store:
        for path in paths:
            try:
                imported = import_file(store, path, file_format)
            except UnreadableFile as error:
                refused = True
                echo(f"spanproof: {error}; nothing of it is stored", err=True)
            else:
                skipped = format_skipped(imported.skipped)
                echo(f"{path}: {imported.spans} spans of {imported.traces} traces{skipped}")
    return EXIT_REJECTED if refused else 0


def export_spans(
    file: str, db: str, file_format: ExportFormat | None, trace_ids: Sequence[UUID], *, overwrite: bool
) -> str:
    """Write stored traces, these or all, to a file or to standard output; return what to say of it."""
    path = Path(file)
    if path.exists() and path.samefile(db):
        raise UnwritableFile(f"{file} is the store itself; name another file")
    with Store.open(db) as store:
        if file == STANDARD_OUTPUT:
            exported = _write_to_stdout(store, file_format or ExportFormat.OTLP_JSON, trace_ids)
        else:
            exported = export_file(
                store, path, file_format or detect_export_format(path), trace_ids, overwrite=overwrite
            )
    return f"{file}: {exported.spans} spans of {exported.traces} traces"


def _write_to_stdout(store: Store, target: ExportFormat, trace_ids: Sequence[UUID]) -> ExportSummary:
    try:
        exported = export_stream(store, sys.stdout.buffer, target, trace_ids)
        sys.stdout.flush()
    except BrokenPipeError:
        # nobody reads on, and Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UnwritableFile("standard output was closed before all was written") from None
    return exported
