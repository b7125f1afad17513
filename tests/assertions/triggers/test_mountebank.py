"""`before` and `after` against a real stub: Mountebank acts as a bank that fails, resets, or responds late."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.context import get_current
from opentelemetry.trace import SpanKind

from spanproof.assertions.findings.verdict import Outcome
from spanproof.tests.assertions.traced_service import ProofResult, Prove, TracedService
from spanproof.tests.assertions.triggers.http_service import ReceivedRequest, Reply, serve_http
from spanproof.tests.command import wait_until
from spanproof.tests.node import find_node
from spanproof.tests.ports import find_free_port

FOLDER = Path(__file__).with_name("mountebank")
TRIES = 3


@pytest.fixture(scope="module")
def mountebank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start Mountebank on a free port; yield its URL."""
    node, port = find_node(FOLDER), find_free_port()
    server = subprocess.Popen(
        [node, "node_modules/mountebank/bin/mb", "start", "--port", str(port), "--host", "127.0.0.1", "--nologfile",
         "--loglevel", "error", "--pidfile", str(tmp_path_factory.mktemp("mountebank") / "pid")],
        cwd=FOLDER,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert server.poll() is None, "Mountebank has ended"
        try:
            return httpx.get(f"{url}/imposters").json() == {"imposters": []}
        except httpx.TransportError:
            return False

    wait_until(is_ready, "Mountebank answers")
    yield url
    server.terminate()
    server.wait()


@pytest.fixture
def shop(trace: Callable[[str], TracedService]) -> Iterator[tuple[str, int]]:
    """A shop that calls the bank up to three times and responds with 502 if all calls fail; and the bank's port."""
    service, port = trace("shop"), find_free_port()

    def call_bank() -> bool:
        attributes = {"service.peer.name": "bank", "http.request.method": "GET", "server.address": "127.0.0.1"}
        with service.begin("GET", get_current(), SpanKind.CLIENT, attributes=attributes) as span:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", "/transfers")
                status = connection.getresponse().status
            except OSError as error:
                span.set_attribute("error.type", type(error).__name__)
                return False
            finally:
                connection.close()
            span.set_attribute("http.response.status_code", status)
            return status < 500

    def answer(request: ReceivedRequest) -> Reply:
        with service.serve("POST /pay", request.headers) as span:
            status = 200 if any(call_bank() for _ in range(TRIES)) else 502
            span.set_attribute("http.response.status_code", status)
        return Reply(status)

    with serve_http(answer) as url:
        yield url, port


BROKEN = """
before {{
  when POST "{mountebank}/imposters" {{
    json {{ "port": {port}, "protocol": "http", "stubs": [{{ "responses": [{responses}] }}] }}
  }}
}}
after {{
  when DELETE "{mountebank}/imposters/{port}"
}}
when POST "{shop}/pay"
"""
FAILING = '{ "is": { "statusCode": 503 } }'
RESET = '{ "fault": "CONNECTION_RESET_BY_PEER" }'
GOOD = '{ "is": { "statusCode": 200 }, "behaviors": [{ "wait": 60 }] }'


@pytest.fixture
def break_bank(mountebank: str, shop: tuple[str, int], prove: Prove) -> Callable[..., ProofResult]:
    """Return a function that judges claims about a payment while the bank gives the specified responses."""
    url, port = shop

    def break_bank(claims: str, *responses: str, **options: str) -> ProofResult:
        text = BROKEN.format(mountebank=mountebank, port=port, shop=url, responses=", ".join(responses))
        result = prove(text + claims, **options)
        assert httpx.get(f"{mountebank}/imposters/{port}").status_code == 404, "the stub still exists"
        return result

    return break_bank


def test_stub_that_fails_twice_is_retried(break_bank: Callable[..., ProofResult]) -> None:
    result = break_bank(
        "expect response.status == 200\nexpect retry shop -> bank { attempts == 3, recovered }\n"
        "expect every try shop -> bank[http.response.status_code == 200] has duration >= 50ms",
        FAILING, RESET, GOOD,
    )  # fmt: skip
    assert result.outcome is Outcome.PASS, (result.reasons, result.finished.error)


def test_failed_proof_removes_stub(break_bank: Callable[..., ProofResult]) -> None:
    result = break_bank("expect response.status == 200\nexpect retry shop -> bank { recovered }", RESET)
    assert result.outcome is Outcome.FAIL
    assert result.finished.error is None


def test_stub_setup_failure_is_error(break_bank: Callable[..., ProofResult]) -> None:
    result = break_bank("expect some shop", '{ "is": { "statusCode": 200, "_mode": 1 }, "fault": 1 }, 7')
    assert result.outcome is Outcome.ERROR
    assert "`before` was answered with 400" in result.error
