"""The Dockerfile: its commands build an installation that starts, is healthy, and stops on SIGTERM.

Docker is not required: see image.py.
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
CHECK_PYTHON = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"


def test_image_declares_user_volume_and_ports() -> None:
    values = {instruction.name: instruction.rest for instruction in INSTRUCTIONS}

    assert values["USER"] == "10001:10001"
    assert values["VOLUME"] == "/data"
    assert values["EXPOSE"] == "4317 4318 8321"


@pytest.mark.timeout(900)  # installs packages twice
def test_image_builds_starts_and_stops(image: Stage) -> None:
    host_ports = {port: find_free_port() for port in image.ports}
    identity = identify(image.user)
    environment = {"HOME": "/", "PATH": image.path} | image.env
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [localize_argument(image, argument, host_ports) for argument in image.command],
            cwd=image.root,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            **identity,
        ) as server,
    ):
        try:
            check = [localize_argument(image, argument, host_ports) for argument in image.healthcheck]
            deadline = time.monotonic() + DEADLINE_S
            while subprocess.run(check, env=environment, capture_output=True, check=False, **identity).returncode:
                assert server.poll() is None, f"the server ended with {server.returncode}:\n{read(log)}"
                assert time.monotonic() < deadline, f"the server is not healthy:\n{read(log)}"
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE_S) == 0, read(log)
        finally:
            server.kill()
    database = image.root / "data/spanproof.duckdb"
    assert database.stat().st_uid == (identity.get("user") or os.getuid())


@pytest.fixture
def image() -> Iterator[Stage]:
    """Build the image in a folder that other users can read, unlike pytest's own temporary directories."""
    user = next(instruction.rest for instruction in INSTRUCTIONS if instruction.name == "USER")
    python = find_python(identify((int(user.split(":")[0]), int(user.split(":")[1]))))
    base = Path(tempfile.mkdtemp(prefix="spanproof-image-"))
    base.chmod(0o755)
    try:
        yield Builder(REPOSITORY, base, python).build(INSTRUCTIONS)
    finally:
        shutil.rmtree(base)


def identify(user: tuple[int, int] | None) -> dict[str, Any]:
    """Return the arguments to start a process as this user; only root can change the user."""
    if user is None or os.getuid() != 0:
        return {}
    return {"user": user[0], "group": user[1], "extra_groups": ()}


def find_python(identity: dict[str, Any]) -> str:
    """Return a Python that this user may run; one below /root is not accessible."""
    for candidate in (os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            subprocess.run([candidate, "-c", CHECK_PYTHON], check=True, capture_output=True, cwd="/", **identity)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    reason = "no Python 3.11 or newer with venv that a user other than root may run"
    if os.environ.get("TESTS_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)


def localize_argument(image: Stage, argument: str, ports: dict[int, int]) -> str:
    """Replace an argument's paths and ports by those outside a container."""
    localized = re.sub(
        r"(0\.0\.0\.0|127\.0\.0\.1):(\d+)", lambda match: f"127.0.0.1:{ports[int(match[2])]}", localize(image, argument)
    )
    # subprocess looks up a relative program in the PATH of this process, not in that of the new environment.
    program = image.venv / "bin" / localized
    return str(program) if "/" not in localized and program.is_file() else localized


def read(log: Any) -> str:
    log.seek(0)
    return str(log.read())
