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
print([name for name in ("httpx", "httpcore", "httpx._main", "pygments", "h2") if name in sys.modules])
"""


def test_libraries_are_imported_without_unused_parts() -> None:
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == "1 True\n['httpx', 'httpcore']\n"  # one thread, the same environment
