"""``--watch``: the proofs to rerun when files are saved."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Self

from watchfiles import watch

from spanproof.assertions.run.proof_files import find_proof_files, list_source_files, read_module
from spanproof.query_lang.load.modules import ProofModule


class _StopEvent(threading.Event):
    """An event that ends a watch. The watch polls it from its start on, which sets `polled`."""

    def __init__(self) -> None:
        super().__init__()
        self.polled = threading.Event()

    def is_set(self) -> bool:
        self.polled.set()
        return super().is_set()


class ProofWatcher:
    """Watches proof files, the files that they use, and the documents of their contracts.

    Once entered, it misses no change, also while proofs run.
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
        """Yield the modules affected by saved files, or the reason why they cannot be read, without end."""
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
        except Exception as error:  # raised again by the iterator
            self._changes.put(error)
            self._stop.polled.set()


def _find_folders(paths: list[Path]) -> tuple[set[Path], bool]:
    """Return the folders to watch, and whether to watch their subfolders too.

    Folders are watched instead of files because an editor may replace a file by a new one.
    """
    folders = {path.resolve() if path.is_dir() else path.resolve().parent for path in paths}
    for path in find_proof_files(paths):
        folders |= {used.parent for used in list_source_files(path, read_module(path)) if used.parent.is_dir()}
    return folders, any(path.is_dir() for path in paths)
