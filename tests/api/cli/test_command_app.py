from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import os
from spanproof.api.cli.command_app import import_numpy

before = dict(os.environ)
import_numpy()
print(len(os.listdir("/proc/self/task")), dict(os.environ) == before)
"""


def test_numpy_starts_no_threads_and_environment_is_kept() -> None:
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == "1 True\n"
