from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import os
import sys
from spanproof.api.library_imports import import_libraries

before = dict(os.environ)
import_libraries()
print(len(os.listdir("/proc/self/task")), dict(os.environ) == before)
print([name for name in sys.argv[1].split() if name in sys.modules])

import numpy
import pyarrow
print(pyarrow.array(numpy.arange(2)).to_pylist(), "numpy.ma" in sys.modules)
masked = numpy.ma.masked_array([1, 2], mask=[False, True])
print(pyarrow.array(masked).to_pylist(), type(masked) is numpy.ma.MaskedArray)
"""
LIBRARIES = "numpy pyarrow.compute httpx httpcore uvicorn"
OMITTED = (
    "numpy._core._add_newdocs numpy._typing pydoc pyarrow.vendored.docscrape httpx._main pygments h2 uvicorn.main click"
)


def test_libraries_are_imported_without_unused_parts() -> None:
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"{LIBRARIES} {OMITTED}"], env=env, capture_output=True, text=True, check=True
    )
    libraries, conversions = f"{LIBRARIES.split()}\n", "[0, 1] False\n[1, None] True\n"
    assert ran.stdout == f"2 True\n{libraries}{conversions}"  # the main thread and one of Arrow's; the same environment
