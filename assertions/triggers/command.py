"""Runs a command that goes on with a trace of ours, which it finds in ``TRACEPARENT``."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from spanproof.assertions.triggers.context import Answer, Send, TraceContext, TriggerFailed
from spanproof.assertions.triggers.request import Request

COMMAND_TIMEOUT_S: Final = 300.0


@contextmanager
def open_command(request: Request) -> Iterator[Send]:
    """Yield what runs the command in the shell. It raises TriggerFailed where it cannot be run, or takes too long."""
    command, timeout = request.target(0), request.timeout_s(COMMAND_TIMEOUT_S)

    def run(context: TraceContext) -> Answer:
        environment = os.environ | {name.upper(): value for name, value in context.headers.items()}
        started_ns = time.perf_counter_ns()
        try:
            done = subprocess.run(  # noqa: S602 (the proof's own words; proofs are trusted like scripts)
                command, shell=True, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise TriggerFailed(f"`{command}` did not end within {timeout:g}s") from None
        if done.returncode in (126, 127):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise TriggerFailed(f"`{command}` cannot be run: {said[-1] if said else done.returncode}")
        return Answer(done.returncode, done.stdout.decode(errors="replace"), time.perf_counter_ns() - started_ns)

    yield run
