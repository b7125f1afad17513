"""``--watch``: which proofs to carry out again when files are saved."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Self

from watchfiles import watch

from spanproof.assertions.run.proof_files import find_proof_files, list_source_files, read_module
from spanproof.query_lang.check.modules import ProofModule


class _StopEvent(threading.Event):
    """Ends a watch, which asks whether it is set from when it has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.polled = threading.Event()

    def is_set(self) -> bool:
        self.polled.set()
        return super().is_set()


class ProofWatcher:
    """Notes what is saved of proof files, of those that they use, and of the documents of their contracts.

    From when it is entered, nothing is missed, also while proofs are carried out.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._changes: SimpleQueue[set[Path] | Exception] = SimpleQueue()
        self._stop = _StopEvent()
        self._thread = threading.Thread(target=self._watch_folders, name="spanproof-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._stop.polled.wait()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[list[ProofModule] | str]:
        """Yield the modules that what was saved belongs to, or why they cannot be read; it never ends."""
        while True:
            saved = self._changes.get()
            while not isinstance(saved, Exception) and not self._changes.empty():
                more = self._changes.get()
                saved = more if isinstance(more, Exception) else saved | more
            if isinstance(saved, Exception):
                raise saved
            try:
                modules = [(path, read_module(path)) for path in find_proof_files(self._paths)]
            except (OSError, UnicodeDecodeError) as error:
                yield str(error)
                continue
            touched = [module for path, module in modules if saved & list_source_files(path, module)]
            if touched:
                yield touched

    def _watch_folders(self) -> None:
        try:
            folders, recursive = _find_folders(self._paths)
            for changes in watch(*folders, stop_event=self._stop, recursive=recursive):
                self._changes.put({Path(path).resolve() for _, path in changes})
        except Exception as error:  # whoever iterates must hear of it
            self._changes.put(error)
            self._stop.polled.set()


def _find_folders(paths: list[Path]) -> tuple[set[Path], bool]:
    """Return what to watch, and whether what is below too: folders, as a new file may take the place of an old one."""
    folders = {path.resolve() if path.is_dir() else path.resolve().parent for path in paths}
    for path in find_proof_files(paths):
        folders |= {used.parent for used in list_source_files(path, read_module(path)) if used.parent.is_dir()}
    return folders, any(path.is_dir() for path in paths)
