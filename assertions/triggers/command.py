"""Runs a command that goes on with a trace of ours, which it finds in ``TRACEPARENT``."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Final

from spanproof.assertions.triggers.context import Answer, TraceContext, TriggerFailed

TIMEOUT_S: Final = 300.0


def run(command: str, context: TraceContext, run_id: str) -> Answer:
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
    return Answer(done.returncode, done.stdout.decode(errors="replace"), time.perf_counter_ns() - started_ns)
