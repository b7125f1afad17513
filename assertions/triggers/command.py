"""Trigger that runs a command with the trace context in the environment variable ``TRACEPARENT``."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from spanproof.assertions.triggers.context import TraceContext, TriggerFailed
from spanproof.assertions.triggers.request import TriggerRequest
from spanproof.assertions.triggers.responses import SendRequest, TriggerResponse

COMMAND_TIMEOUT_S: Final = 300.0
TERMINATION_GRACE_S: Final = 2.0


@contextmanager
def open_command(request: TriggerRequest) -> Iterator[SendRequest]:
    """Yield a function that runs the command in the shell.

    The function raises TriggerFailed if the command cannot be run or takes too long. On exit, terminate the commands
    that still run, with their child processes.
    """
    command, timeout = request.read_target(0), request.read_timeout_s(COMMAND_TIMEOUT_S)
    running: set[subprocess.Popen[bytes]] = set()
    lock = threading.Lock()  # no command starts while the exit collects the running ones
    closed = False

    def start(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with lock:
            if closed:
                raise TriggerFailed(f"`{command}` was not started: the trigger is closed")
            process = subprocess.Popen(  # noqa: S602 (the text of the proof; proofs are trusted like scripts)
                command, shell=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            running.add(process)
        return process

    def run(context: TraceContext) -> TriggerResponse:
        environment = os.environ | {name.upper(): value for name, value in context.headers.items()}
        started_ns = time.perf_counter_ns()
        with start(environment) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                _terminate(process)
                raise TriggerFailed(f"`{command}` did not end within {timeout:g}s") from None
            finally:
                running.discard(process)
        if process.returncode in (126, 127):
            lines = stderr.decode(errors="replace").strip().splitlines()
            raise TriggerFailed(f"`{command}` cannot be run: {lines[-1] if lines else process.returncode}")
        return TriggerResponse(process.returncode, stdout.decode(errors="replace"), time.perf_counter_ns() - started_ns)

    try:
        yield run
    finally:
        with lock:
            closed = True
        for process in tuple(running):
            _terminate(process)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Terminate a command and its child processes with SIGTERM, and with SIGKILL after a grace period."""
    for number, seconds in ((signal.SIGTERM, TERMINATION_GRACE_S), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
