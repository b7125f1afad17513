"""Import of large libraries without the parts that are not used here."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final

_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"


def import_libraries() -> None:
    """Import numpy and httpx before another module does. A command that judges spans calls this first."""
    _import_numpy()
    # As they are where these are not installed. httpx's command line imports Click, Pygments and most of Rich.
    _import_without("httpx", "httpx._main")
    _import_without("httpcore", "h2")


def _import_numpy() -> None:
    """Import numpy with a single thread for linear algebra, which is not used here.

    OpenBLAS would start a thread per processor, each of which first spins for 0.03 s. The variable is unset again,
    because the commands that a proof runs inherit the environment.
    """
    if _BLAS_THREADS in os.environ:
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        import_module("numpy")
    finally:
        del os.environ[_BLAS_THREADS]


def _import_without(name: str, omitted: str) -> None:
    """Import a library while one of the modules that it can do without cannot be imported."""
    if name in sys.modules or omitted in sys.modules:
        return
    sys.modules[omitted] = None  # type: ignore[assignment]  # Python's way to say: not installed
    try:
        import_module(name)
    finally:
        del sys.modules[omitted]
