"""Files of traces, into a store and out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from spanproof.collector.files.documents import UnreadableFile
from spanproof.collector.files.importing import import_file, tell_skipped
from spanproof.collector.files.reading import Format
from spanproof.collector.store import Store

REFUSED = 2


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
