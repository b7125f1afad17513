"""Start of `spanproof` by fork from a process with all imports done, as importing takes longer than most commands.

One process imports everything and then forks for each start. The forked process becomes the command, with arguments,
folder, environment, standard streams and session of its own. It receives signals and ends like any process, but does
not destroy the imported modules.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

import spanproof

_MAX_REQUEST_BYTES = 2**18
_PARTS = ("query_lang", "collector", "assertions", "api")


class ForkedCommand:
    """A started command with the interface of `subprocess.Popen`."""

    def __init__(self, arguments: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.args = arguments
        self.returncode: int | None = None
        out, err = os.pipe(), os.pipe()
        try:
            self.pid = _starter().start({"arguments": arguments, "cwd": str(cwd), "env": env}, [out[1], err[1]])
        finally:
            os.close(out[1])
            os.close(err[1])
        self.stdout, self.stderr = os.fdopen(out[0], "rb"), os.fdopen(err[0], "rb")

    def poll(self) -> int | None:
        """Return the exit code, or None while the command is running."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code after the end of the command. Raises subprocess.TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self.returncode = _starter().wait(self.pid, timeout)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        """Return the output up to the end of the command. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        read = {self.stdout: bytearray(), self.stderr: bytearray()}
        with selectors.DefaultSelector() as selector:
            for stream in read:
                if not stream.closed:
                    selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(deadline - time.monotonic())
                if not ready:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                for key, _ in ready:
                    more = os.read(key.fd, 65536)
                    read[key.fileobj].extend(more)  # type: ignore[index]
                    if not more:
                        selector.unregister(key.fileobj)
        self.wait(max(0.0, deadline - time.monotonic()))
        return bytes(read[self.stdout]), bytes(read[self.stderr])

    def send_signal(self, number: int) -> None:
        """Send a signal, if the command is running."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Starter:
    """The process that forks, and the exit codes that it has reported."""

    def __init__(self) -> None:
        self._control, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._codes: dict[int, int] = {}
        self._lock = threading.Lock()
        command = [sys.executable, "-m", __spec__.name, str(remote.fileno())]
        self._process = subprocess.Popen(
            command, pass_fds=[remote.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        remote.close()
        atexit.register(self._close)

    def _close(self) -> None:
        self._control.close()
        self._process.wait()

    def start(self, request: dict[str, object], streams: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._control, [json.dumps(request).encode()], streams)
            while (started := self._read(None)) is None:
                pass
            return started

    def wait(self, pid: int, timeout: float | None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if pid in self._codes:
                    return self._codes.pop(pid)
                # briefly, as other threads may be waiting too
                left = 0.05 if deadline is None else min(0.05, deadline - time.monotonic())
                self._read(max(left, 0))
                if pid not in self._codes and left <= 0:
                    return None

    def _read(self, timeout: float | None) -> int | None:
        """Read the next report; return the process id if it is about a started command."""
        self._control.settimeout(timeout or (None if timeout is None else 1e-6))
        try:
            report = self._control.recv(4096)
        except (TimeoutError, BlockingIOError):
            return None
        if not report:
            raise RuntimeError(f"the process that starts commands has ended with {self._process.wait()}")
        pid, code = json.loads(report)
        if code is None:
            return int(pid)
        self._codes[pid] = code
        return None


@cache
def _starter() -> _Starter:
    return _Starter()


def _import_all() -> None:
    for part in _PARTS:
        root = importlib.import_module(f"{spanproof.__name__}.{part}")
        for module in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            importlib.import_module(module.name)
    importlib.import_module("httpcore")  # httpx imports it with its first client


def _serve(control: socket.socket) -> bool:
    """Fork for each request and report the exit codes; return True in a forked process, False at the end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(reading, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == reading:
                    os.read(reading, 4096)
                    _reap(control)
                    continue
                body, streams, _, _ = socket.recv_fds(control, _MAX_REQUEST_BYTES, 2)
                if not body:
                    return False
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(reading)
                    os.close(writing)
                    control.close()
                    _set_up_command(json.loads(body), streams)
                    return True
                for stream in streams:
                    os.close(stream)
                control.send(json.dumps([pid, None]).encode())


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        control.send(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode())


def _set_up_command(request: dict[str, object], streams: list[int]) -> None:
    os.setsid()
    # Shells ignore SIGINT for background processes, and `nohup` ignores SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[call-overload]
    sys.argv = ["spanproof", *request["arguments"]]  # type: ignore[misc]


def _run_and_exit(main: Callable[[], NoReturn]) -> NoReturn:
    """Run the command and exit like Python, but without destroying the imported modules."""
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for non-daemon threads
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(BrokenPipeError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    _import_all()
    gc.freeze()  # so that garbage collection in a forked process does not copy the pages of these objects
    if _serve(socket.socket(fileno=int(sys.argv[1]))):
        _run_and_exit(importlib.import_module("spanproof.api.cli.main").main)
    gc.unfreeze()
