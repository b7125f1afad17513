"""Runs a command that goes on with a trace of ours, which it finds in ``TRACEPARENT``."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from typing import Final

from spanproof.assertions.triggers.context import TraceContext, TriggerFailed, read_json
from spanproof.query_lang.constants import Constant

TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command left: ``response.status`` is its exit code, ``response.body`` what it printed."""

    status: int
    body: str
    duration_ns: int

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the result, or None where it has no such part."""
        match part:
            case "status":
                return Constant(self.status, "number")
            case "duration":
                return Constant(self.duration_ns, "duration")
            case "body":
                return Constant(self.body, "text")
            case "json":
                return read_json(self.body, keys)
            case _:
                return None


def run(command: str, context: TraceContext, run_id: str) -> CommandResult:
    """Run a command in the shell. Raises TriggerFailed where the shell cannot run it, or it takes too long."""
    environment = os.environ | {"TRACEPARENT": context.traceparent, "BAGGAGE": f"spanproof.run_id={run_id}"}
    started_ns = time.perf_counter_ns()
    try:
        done = subprocess.run(  # noqa: S602 (the proof's own words; proofs are trusted like scripts)
            command, shell=True, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TriggerFailed(f"`{command}` did not end within {TIMEOUT_S:g}s") from None
    if done.returncode in (126, 127):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise TriggerFailed(f"`{command}` cannot be run: {said[-1] if said else done.returncode}")
    return CommandResult(done.returncode, done.stdout.decode(errors="replace"), time.perf_counter_ns() - started_ns)
