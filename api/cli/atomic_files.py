"""Atomic writing of files."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: completely or not at all. Raises OSError."""
    from tempfile import NamedTemporaryFile  # takes long to import, and most runs write no report

    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.chmod(file.name, 0o666 & ~_read_umask())  # the permissions of a usual file; a temporary file is private
            os.replace(file.name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(file.name)
            raise


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
