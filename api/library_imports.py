"""Import of large libraries without the parts that are not used here.

Half of the time of a short run is the import of libraries. Some of their modules only write docstrings or define the
library's own command line. `import_libraries` imports the libraries while stand-ins take the place of those modules.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"


def _make_module(name: str, **names: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(names)
    return module


def _read_no_docstring(_docstring: str) -> dict[str, tuple[Any, ...]]:
    """Return the documented parameters of an Arrow function: none."""
    return {"Parameters": ()}


# By library: the modules that it can do without, and what takes their place. None: as if not installed.
_STAND_INS: Final[Mapping[str, Mapping[str, ModuleType | None]]] = {
    "numpy": {
        "numpy._core._add_newdocs": _make_module("numpy._core._add_newdocs"),
        "numpy._core._add_newdocs_scalars": _make_module("numpy._core._add_newdocs_scalars"),
        "numpy._typing": _make_module("numpy._typing", NDArray=list),  # for annotations
    },
    "pyarrow.compute": {
        "pyarrow.vendored.docscrape": _make_module("pyarrow.vendored.docscrape", NumpyDocString=_read_no_docstring)
    },
    # a command line, which imports Click, Pygments and most of Rich
    "httpx": {"httpx._main": None},
    "httpcore": {"h2": None},
    # a command line, which imports Click; it also starts processes, which spanproof does not use
    "uvicorn": {"uvicorn.main": _make_module("uvicorn.main", Server=None, main=None, run=None)},
}


class _LazyModule(ModuleType):
    """A module that is imported when something is read that this stand-in lacks."""

    def __getattr__(self, name: str) -> object:
        return getattr(import_module(self.__name__), name)


def import_libraries() -> None:
    """Import the libraries of `_STAND_INS` before another module does. A command that judges spans calls this first."""
    with _limit_blas_threads():
        for name, stand_ins in _STAND_INS.items():
            _import_with(name, stand_ins)
    _import_masked_arrays_later()


def _import_masked_arrays_later() -> None:
    """Let Arrow ask whether an array is masked, which none is before ``numpy.ma`` is imported, without importing it."""
    if "numpy" in sys.modules and "numpy.ma" not in sys.modules:
        masked_arrays = _LazyModule("numpy.ma")
        vars(masked_arrays)["MaskedArray"] = type("MaskedArray", (), {})
        vars(sys.modules["numpy"])["ma"] = masked_arrays  # importing the module itself replaces this


@contextmanager
def _limit_blas_threads() -> Iterator[None]:
    """Let numpy, imported within, use a single thread for linear algebra, which is not used here.

    OpenBLAS would start a thread per processor, each of which first spins for 0.03 s. The variable is unset again,
    because the commands that a proof runs inherit the environment.
    """
    if _BLAS_THREADS in os.environ:
        yield
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_BLAS_THREADS]


def _import_with(name: str, stand_ins: Mapping[str, ModuleType | None]) -> None:
    """Import a library while stand-ins take the place of some of its modules, unless one of these is imported.

    A version that needs more of these modules than the stand-ins have is imported as it is when it is first used.
    """
    if name in sys.modules or not sys.modules.keys().isdisjoint(stand_ins):
        return
    sys.modules.update(stand_ins)  # type: ignore[arg-type]  # None is Python's way to say: not installed
    try:
        with suppress(ImportError, AttributeError):
            import_module(name)
    finally:
        for each in stand_ins:
            del sys.modules[each]
