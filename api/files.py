"""Files of traces, into a store and out of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from spanproof.collector.files.documents import UnreadableFile
from spanproof.collector.files.importing import import_file, tell_skipped
from spanproof.collector.files.reading import Format
from spanproof.collector.files.writing import Exported, Target, Unwritable, export_file, export_stream, find_target
from spanproof.collector.store import Store

REFUSED = 2
STANDARD_OUTPUT = "-"


def import_files(paths: Sequence[Path], db: str, told: Format | None, say: Callable[..., None]) -> int:
    """Store what files hold; a refused one keeps none of the others out. Return the exit code."""
    refused = False
    with Store.open(db) as store:
        for path in paths:
            try:
                imported = import_file(store, path, told)
            except UnreadableFile as error:
                refused = True
                say(f"spanproof: {error}; nothing of it is stored", err=True)
            else:
                skipped = tell_skipped(imported.skipped)
                say(f"{path}: {imported.spans} spans of {imported.traces} traces{skipped}")
    return REFUSED if refused else 0


def export_spans(file: str, db: str, told: Target | None, trace_ids: Sequence[UUID], *, overwrite: bool) -> str:
    """Write stored traces, these or all, to a file or to standard output; return what to say of it."""
    path = Path(file)
    if path.exists() and path.samefile(db):
        raise Unwritable(f"{file} is the store itself; name another file")
    with Store.open(db) as store:
        if file == STANDARD_OUTPUT:
            exported = _print(store, told or Target.OTLP_JSON, trace_ids)
        else:
            exported = export_file(store, path, told or find_target(path), trace_ids, overwrite=overwrite)
    return f"{file}: {exported.spans} spans of {exported.traces} traces"


def _print(store: Store, target: Target, trace_ids: Sequence[UUID]) -> Exported:
    try:
        exported = export_stream(store, sys.stdout.buffer, target, trace_ids)
        sys.stdout.flush()
    except BrokenPipeError:
        # nobody reads on, and Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Unwritable("standard output was closed before all was written") from None
    return exported
