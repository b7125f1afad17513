"""Runner of a Compose file's services without Docker: each is a process with a loopback address of its own.

It supports only the keys that the repository's file uses.
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

SUPPORTED_KEYS = {"image", "build", "command", "environment", "volumes", "healthcheck", "depends_on"}


class Composition:
    """A Compose file; `data` stands for the volume /data."""

    def __init__(self, path: Path, data: Path) -> None:
        self.document: dict[str, Any] = yaml.safe_load(path.read_text())
        self.services: dict[str, dict[str, Any]] = self.document["services"]
        self._folder = path.parent
        self._data = data
        # addresses exclusive to this process, so that the ports need no change
        block = f"127.{64 + os.getpid() // 256 % 128}.{os.getpid() % 256}"
        self._addresses = {name: f"{block}.{number}" for number, name in enumerate(self.services, 1)}

    def translate(self, name: str, text: str) -> str:
        """Replace addresses, host names and paths in a service's configuration by local ones."""
        text = re.sub(r"(?<=//)([a-z-]+)(?=:\d)", lambda match: self._addresses[match[1]], text)
        text = re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1)\b", self._addresses[name], text)
        for volume in self.services[name].get("volumes", ()):
            source, target, _ = volume.split(":")
            text = re.sub(rf"(?<![\w.]){target}(?=/|$)", str((self._folder / source).resolve()), text)
        return re.sub(r"(?<![\w.])/data(?=/|$)", str(self._data), text)

    def command(self, name: str) -> list[str]:
        """Return the command of a service in the form for this machine."""
        assert self.services[name].keys() <= SUPPORTED_KEYS
        return self._programs(name, self.services[name]["command"])

    def is_healthy(self, name: str) -> bool:
        """Return whether the health check of a service succeeds."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return subprocess.run(self._programs(name, test), capture_output=True, check=False).returncode == 0

    def _programs(self, name: str, words: list[str]) -> list[str]:
        program, *arguments = (self.translate(name, word) for word in words)
        return [str(Path(sys.executable).with_name(program)), *arguments]

    @contextmanager
    def run(self, *names: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
        """Run services until the end of the context."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "SHOP_", "SPANPROOF_"))
        }
        with ExitStack() as stack:
            running = {}
            for name in names:
                configured = self.services[name].get("environment", {})
                environment = inherited | {key: self.translate(name, value) for key, value in configured.items()}
                process = subprocess.Popen(self.command(name), env=environment, cwd=self._data)
                running[name] = stack.enter_context(process)
                stack.callback(process.terminate)
            yield running
