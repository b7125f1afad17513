"""Redis on a free port, and the celery worker that is inventory."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from spanproof.tests.field.clients import BUILT, HERE, make_environment
from spanproof.tests.ports import find_free_port

START_S: Final = 30.0


def why_no_broker() -> str:
    """Return why the queue's clients cannot run; "" if they can."""
    return "" if shutil.which("redis-server") else "redis-server is not installed (on Debian: apt-get install it)"


class Broker:
    """A broker with a worker, from construction to `stop`."""

    def __init__(self, otlp_http: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        port = find_free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._processes = [
            subprocess.Popen(
                ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
                cwd=self._folder.name,
                stdout=subprocess.DEVNULL,
            )
        ]
        try:
            _wait_until_listens(port)
            command = [str(BUILT / "python/bin/python"), "celery_worker.py"]
            environment = make_environment(otlp_http) | {"FIELD_REDIS": self.url, "OTEL_SERVICE_NAME": "inventory"}
            log = Path(self._folder.name) / "worker.log"
            with log.open("w") as output:
                self._processes.append(
                    subprocess.Popen(command, cwd=HERE / "python", env=environment, stdout=output, stderr=output)
                )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()


def _wait_until_listens(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "redis-server did not start"
        time.sleep(0.05)
