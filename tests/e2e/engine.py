"""A fake of Docker's engine for containers of one image, each of which is a local process.

It supports the requests with which Testcontainers creates, starts, finds and removes a container, and answers 501 to
all others.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from spanproof.tests.ports import find_free_port

VERSION = {"ApiVersion": "1.50", "MinAPIVersion": "1.24", "Version": "28.0.0"}


@dataclass(slots=True)
class Engine:
    """The containers of `image`, whose default command is `command`; `data` stands for the volume /data."""

    image: str
    command: list[str]
    data: Path
    address: str = ""
    created: dict[str, Any] = field(default_factory=dict)  # the last request to create a container
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Answer a request."""
        resource = re.sub(r"^/v1\.\d+|\?.*", "", path)
        handlers: dict[tuple[str, str], Callable[[Any], tuple[int, Any]]] = {
            ("GET", "/version"): lambda _: (200, VERSION),
            ("GET", f"/images/{self.image}/json"): lambda _: (200, {"Id": "sha256:image", "RepoTags": [self.image]}),
            ("POST", "/containers/create"): self._create,
            ("GET", "/containers/c0ffee/json"): lambda _: (200, self._describe()),
            ("POST", "/containers/c0ffee/start"): self._start,
            ("DELETE", "/containers/c0ffee"): self._remove,
        }
        handler = handlers.get((method, resource))
        return handler(body) if handler else (501, {"message": f"{method} {path} is not supported"})

    def _create(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.created = body
        self.ports = {port: find_free_port() for port in body["ExposedPorts"]}
        return 201, {"Id": "c0ffee", "Warnings": []}

    def _start(self, _: Any) -> tuple[int, Any]:
        host_ports = {port.removesuffix("/tcp"): host_port for port, host_port in self.ports.items()}
        program, *arguments = (
            re.sub(r"0\.0\.0\.0:(\d+)", lambda match: f"127.0.0.1:{host_ports[match[1]]}", word)
            for word in self.created.get("Cmd") or self.command
        )
        environment = os.environ | dict(pair.split("=", 1) for pair in self.created.get("Env") or ())
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name(program), *(re.sub("^/data", str(self.data), each) for each in arguments)],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        return 204, None

    def _describe(self) -> dict[str, Any]:
        running = self.process is not None and self.process.poll() is None
        bound = {port: [{"HostIp": "127.0.0.1", "HostPort": str(host_port)}] for port, host_port in self.ports.items()}
        return {
            "Id": "c0ffee",
            "Image": "sha256:image",
            "Name": "/one",
            "Config": {"Image": self.image, "Labels": self.created.get("Labels")},
            "State": {"Status": "running" if running else "created", "Running": running},
            "NetworkSettings": {"Ports": bound if running else {}, "Networks": {}},
        }

    def _remove(self, _: Any) -> tuple[int, Any]:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
        return 204, None


@contextmanager
def open_engine(image: str, command: list[str], data: Path) -> Iterator[Engine]:
    """Serve the engine's API on a free loopback port."""
    engine = Engine(image, command, data)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, answer = engine.answer(self.command, self.path, body)
            content = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 (names required by the server)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True  # clients keep connections open
    engine.address = f"tcp://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        if engine.process is not None and engine.process.poll() is None:
            engine.process.kill()
            engine.process.wait()
