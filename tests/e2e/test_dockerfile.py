"""The Dockerfile's own commands build something that runs, is healthy, and stops when told to.

Docker itself is not needed: see image.py.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spanproof.tests.command import DEADLINE_S
from spanproof.tests.e2e.image import Builder, Stage, localize, parse
from spanproof.tests.ports import find_free_port

REPOSITORY = Path(__file__).parents[2]
INSTRUCTIONS = parse((REPOSITORY / "Dockerfile").read_text())
MAY_BUILD = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"


def test_the_image_drops_root_keeps_its_data_and_says_what_it_listens_on() -> None:
    said = {instruction.name: instruction.rest for instruction in INSTRUCTIONS}

    assert said["USER"] == "10001:10001"
    assert said["VOLUME"] == "/data"
    assert said["EXPOSE"] == "4317 4318 8321"


@pytest.mark.timeout(900)  # it installs packages twice
def test_the_image_builds_runs_is_healthy_and_stops(image: Stage) -> None:
    moved = {port: find_free_port() for port in image.ports}
    identity = identify(image.user)
    environment = {"HOME": "/", "PATH": image.path} | image.env
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [move(image, argument, moved) for argument in image.command],
            cwd=image.root,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            **identity,
        ) as server,
    ):
        try:
            check = [move(image, argument, moved) for argument in image.healthcheck]
            deadline = time.monotonic() + DEADLINE_S
            while subprocess.run(check, env=environment, capture_output=True, check=False, **identity).returncode:
                assert server.poll() is None, f"it ended with {server.returncode}:\n{read(log)}"
                assert time.monotonic() < deadline, f"it is not healthy:\n{read(log)}"
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE_S) == 0, read(log)
        finally:
            server.kill()
    database = image.root / "data/spanproof.duckdb"
    assert database.stat().st_uid == (identity.get("user") or os.getuid())


@pytest.fixture
def image() -> Iterator[Stage]:
    """Build the image where another user may read it, which pytest's own temporary directories do not allow."""
    user = next(instruction.rest for instruction in INSTRUCTIONS if instruction.name == "USER")
    python = find_python(identify((int(user.split(":")[0]), int(user.split(":")[1]))))
    base = Path(tempfile.mkdtemp(prefix="spanproof-image-"))
    base.chmod(0o755)
    try:
        yield Builder(REPOSITORY, base, python).build(INSTRUCTIONS)
    finally:
        shutil.rmtree(base)


def identify(user: tuple[int, int] | None) -> dict[str, Any]:
    """Return how to start a process as this user: only root can, others run it as themselves."""
    if user is None or os.getuid() != 0:
        return {}
    return {"user": user[0], "group": user[1], "extra_groups": ()}


def find_python(identity: dict[str, Any]) -> str:
    """Return a Python that this user may run; root's own, below /root, is none."""
    for candidate in (os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            subprocess.run([candidate, "-c", MAY_BUILD], check=True, capture_output=True, cwd="/", **identity)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    reason = "no Python 3.11 or newer with venv that another user than root may run"
    if os.environ.get("TESTS_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)


def move(image: Stage, argument: str, ports: dict[int, int]) -> str:
    """Put an argument's paths and ports where they are outside a container."""
    moved = re.sub(
        r"(0\.0\.0\.0|127\.0\.0\.1):(\d+)", lambda match: f"127.0.0.1:{ports[int(match[2])]}", localize(image, argument)
    )
    # A relative program is looked up in our PATH, not in that of the environment the process is given.
    program = image.venv / "bin" / moved
    return str(program) if "/" not in moved and program.is_file() else moved


def read(log: Any) -> str:
    log.seek(0)
    return str(log.read())
