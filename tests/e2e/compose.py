"""Carries out services of a Compose file without Docker: each is a process, at an address of loopback of its own.

It knows what the repository's file uses, and refuses other keys.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

KNOWN = {"image", "build", "command", "environment", "volumes", "healthcheck", "depends_on"}


class Composition:
    """A Compose file; `data` stands for the volume /data."""

    def __init__(self, path: Path, data: Path) -> None:
        self.document: dict[str, Any] = yaml.safe_load(path.read_text())
        self.services: dict[str, dict[str, Any]] = self.document["services"]
        self._folder = path.parent
        self._data = data
        block = f"127.{64 + os.getpid() // 256 % 128}.{os.getpid() % 256}"  # nobody else's: ports are as they stand
        self._addresses = {name: f"{block}.{number}" for number, name in enumerate(self.services, 1)}

    def place(self, name: str, text: str) -> str:
        """Put what a service is told where it is outside a container: programs, addresses, names and paths."""
        text = re.sub(r"(?<=//)([a-z-]+)(?=:\d)", lambda match: self._addresses[match[1]], text)
        text = re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1)\b", self._addresses[name], text)
        for volume in self.services[name].get("volumes", ()):
            here, there, _ = volume.split(":")
            text = re.sub(rf"(?<![\w.]){there}(?=/|$)", str((self._folder / here).resolve()), text)
        return re.sub(r"(?<![\w.])/data(?=/|$)", str(self._data), text)

    def command(self, name: str) -> list[str]:
        """Return the command of a service, to be run here."""
        assert self.services[name].keys() <= KNOWN
        return self._programs(name, self.services[name]["command"])

    def is_healthy(self, name: str) -> bool:
        """Carry out the health check of a service."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return subprocess.run(self._programs(name, test), capture_output=True, check=False).returncode == 0

    def _programs(self, name: str, words: list[str]) -> list[str]:
        program, *arguments = (self.place(name, word) for word in words)
        return [str(Path(sys.executable).with_name(program)), *arguments]

    @contextmanager
    def run(self, *names: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
        """Run services, until the end."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "SHOP_", "SPANPROOF_"))}
        with ExitStack() as stack:
            running = {}
            for name in names:
                told = self.services[name].get("environment", {})
                environment = kept | {key: self.place(name, value) for key, value in told.items()}
                process = subprocess.Popen(self.command(name), env=environment, cwd=self._data)
                running[name] = stack.enter_context(process)
                stack.callback(process.terminate)
            yield running
