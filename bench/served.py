"""Measured servers: started as processes of their own, with their addresses, memory and files."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    addresses: Mapping[str, str]
    folder: Path
    # for a server that answers before it stores the spans: waits until they are stored, returns the seconds waited
    wait_until_stored: Callable[[float], float] = lambda _spans: 0.0

    def peak_rss_mib(self) -> float:
        """Return the peak memory of the server."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024

    def size(self) -> int:
        """Return the size of the server's files in bytes."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def stop(self) -> None:
        """Stop the server with SIGTERM, or kill it after a timeout."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def serve(folder: Path) -> Served:
    """Start `spanproof serve` with its file in `folder`."""
    free = "127.0.0.1:0"
    command = [Path(sys.executable).with_name("spanproof"), "serve", "--db", folder / "spans.duckdb"]
    process, line = start([*map(str, command), "--otlp-grpc", free, "--otlp-http", free, "--api", free])
    match = re.search(r"OTLP/gRPC (\S+)  OTLP/HTTP (\S+)", line)
    if not match:
        raise RuntimeError(f"the server did not start: {line}")
    return Served(process, {"grpc": match[1], "http": match[2]}, folder)


def start(command: list[str]) -> tuple[subprocess.Popen[str], str]:
    """Start a command; return its process and its first line, which contains its address."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (our own commands)
    return process, process.stdout.readline() if process.stdout else ""
