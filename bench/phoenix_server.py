"""Phoenix, a widely used OTLP server in Python, if `make bench-phoenix` has installed it.

Its dependencies conflict with ours, so it has an environment of its own: `.phoenix`, or the folder in BENCH_PHOENIX.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import grpc

from spanproof.bench.ports import find_free_port
from spanproof.bench.served import Served

_START_S = 120.0
_STORE_S = 120.0


class NotInstalled(Exception):
    """Phoenix is not installed."""


def start(folder: Path) -> Served:
    """Start Phoenix with its database in `folder`."""
    environment = Path(os.environ.get("BENCH_PHOENIX", Path(__file__).parents[1] / ".phoenix"))
    command = environment / "bin" / "phoenix"
    if not command.exists():
        raise NotInstalled("not installed; `make bench-phoenix` installs it")
    ports = [str(find_free_port()) for _ in range(2)]
    env = {**os.environ, "PHOENIX_WORKING_DIR": str(folder), "PHOENIX_HOST": "127.0.0.1"}
    env |= {"PHOENIX_PORT": ports[0], "PHOENIX_GRPC_PORT": ports[1], "PHOENIX_TELEMETRY_ENABLED": "false"}
    process = subprocess.Popen(  # noqa: S603 (our own command)
        [command, "serve"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    address = f"127.0.0.1:{ports[1]}"
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(_START_S)
    return Served(process, {"grpc": address}, folder, lambda spans: _wait_until_stored(folder / "phoenix.db", spans))


def _wait_until_stored(path: Path, spans: float) -> float:
    begin = time.monotonic()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        while connection.execute("SELECT count(*) FROM spans").fetchone()[0] < spans:
            if time.monotonic() - begin > _STORE_S:
                raise TimeoutError("Phoenix has not stored all acknowledged spans")
            time.sleep(0.1)
    return time.monotonic() - begin
