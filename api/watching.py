"""``--watch``: which proofs to carry out again when files are saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from watchfiles import DefaultFilter, watch

from spanproof.assertions.proof_files import files_of, find_files, read_module
from spanproof.query_lang.modules import Module


def watch_modules(paths: list[Path]) -> Iterator[list[Module] | str]:
    """Yield the modules that what was saved belongs to, or why they cannot be read. It ends with Ctrl-C.

    A file belongs to a module if it is its own, one that it uses, or a document of its contracts.
    """
    folders, recursive = _find_folders(paths)
    for changes in watch(*folders, watch_filter=DefaultFilter(), recursive=recursive):
        changed = {Path(path).resolve() for _, path in changes}
        try:
            found = [(path, read_module(path)) for path in find_files(paths)]
        except OSError as error:
            yield f"{error.filename or error}: {error.strerror or 'it is gone'}"
            continue
        except UnicodeDecodeError as error:
            yield f"not text in UTF-8: {error.reason}"
            continue
        touched = [module for path, module in found if changed & files_of(path, module)]
        if touched:
            yield touched


def _find_folders(paths: list[Path]) -> tuple[set[Path], bool]:
    """Return what to watch: folders, as an editor may put a new file in an old one's place."""
    folders = {path.resolve() if path.is_dir() else path.resolve().parent for path in paths}
    for path in find_files(paths):
        folders |= {used.parent for used in files_of(path, read_module(path)) if used.parent.is_dir()}
    return folders, any(path.is_dir() for path in paths)
