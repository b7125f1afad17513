"""Runs a command that goes on with a trace of ours, which it finds in ``TRACEPARENT``."""

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
    """Yield what runs the command in the shell. It raises TriggerFailed where it cannot be run, or takes too long.

    What has not ended when this is left is ended, with all that it has begun.
    """
    command, timeout = request.read_target(0), request.read_timeout_s(COMMAND_TIMEOUT_S)
    under_way: set[subprocess.Popen[bytes]] = set()
    lock = threading.Lock()  # nothing begins unseen while it is looked for what is under way
    left = False

    def begin(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with lock:
            if left:
                raise TriggerFailed(f"`{command}` was not begun: nobody waits for it any more")
            running = subprocess.Popen(  # noqa: S602 (the proof's own words; proofs are trusted like scripts)
                command, shell=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            under_way.add(running)
        return running

    def run(context: TraceContext) -> TriggerResponse:
        environment = os.environ | {name.upper(): value for name, value in context.headers.items()}
        started_ns = time.perf_counter_ns()
        with begin(environment) as running:
            try:
                out, err = running.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                _terminate(running)
                raise TriggerFailed(f"`{command}` did not end within {timeout:g}s") from None
            finally:
                under_way.discard(running)
        if running.returncode in (126, 127):
            said = err.decode(errors="replace").strip().splitlines()
            raise TriggerFailed(f"`{command}` cannot be run: {said[-1] if said else running.returncode}")
        return TriggerResponse(running.returncode, out.decode(errors="replace"), time.perf_counter_ns() - started_ns)

    try:
        yield run
    finally:
        with lock:
            left = True
        for running in tuple(under_way):
            _terminate(running)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it has begun: by SIGTERM, and by SIGKILL what does not heed that."""
    for number, seconds in ((signal.SIGTERM, TERMINATION_GRACE_S), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
