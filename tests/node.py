"""Node.js, with what the programs of a folder need beside them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def find_node(folder: Path) -> str:
    """Find node, and install what the lock file of a folder says; skip where there is no node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        reason = f"node and npm are needed for what {folder.name} holds"
        if os.environ.get("TESTS_REQUIRE_ALL"):
            pytest.fail(reason)
        pytest.skip(reason)
    installed, wanted = folder / "node_modules/.package-lock.json", folder / "package-lock.json"
    with wanted.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several tests begin at once
        if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
            subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return node
