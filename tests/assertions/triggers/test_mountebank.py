"""`before` and `after`, tried against a real stub: Mountebank answers for a bank, wrongly, late, or not at all."""

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
from spanproof.tests.assertions.traced_service import Carried, Prove, Traced
from spanproof.tests.assertions.triggers.http_service import Asked, Reply, serve_http
from spanproof.tests.command import wait_until
from spanproof.tests.node import find_node
from spanproof.tests.ports import find_free_port

FOLDER = Path(__file__).with_name("mountebank")
TRIES = 3


@pytest.fixture(scope="module")
def mountebank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve Mountebank on a free port."""
    node, port = find_node(FOLDER), find_free_port()
    server = subprocess.Popen(
        [node, "node_modules/mountebank/bin/mb", "start", "--port", str(port), "--host", "127.0.0.1", "--nologfile",
         "--loglevel", "error", "--pidfile", str(tmp_path_factory.mktemp("mountebank") / "pid")],
        cwd=FOLDER,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None, "Mountebank has ended"
        try:
            return httpx.get(f"{url}/imposters").json() == {"imposters": []}
        except httpx.TransportError:
            return False

    wait_until(answers, "Mountebank answers")
    yield url
    server.terminate()
    server.wait()


@pytest.fixture
def shop(trace: Callable[[str], Traced]) -> Iterator[tuple[str, int]]:
    """A shop that asks the bank, three times if need be, and answers 502 if that was in vain; and the bank's port."""
    traced, port = trace("shop"), find_free_port()

    def ask() -> bool:
        named = {"service.peer.name": "bank", "http.request.method": "GET", "server.address": "127.0.0.1"}
        with traced.begin("GET", get_current(), SpanKind.CLIENT, attributes=named) as span:
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

    def answer(asked: Asked) -> Reply:
        with traced.serve("POST /pay", asked.headers) as span:
            status = 200 if any(ask() for _ in range(TRIES)) else 502
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
def break_bank(mountebank: str, shop: tuple[str, int], prove: Prove) -> Callable[..., Carried]:
    """Carries out claims about a payment while the bank answers as it is told."""
    url, port = shop

    def break_bank(claims: str, *responses: str, **options: str) -> Carried:
        text = BROKEN.format(mountebank=mountebank, port=port, shop=url, responses=", ".join(responses))
        carried = prove(text + claims, **options)
        assert httpx.get(f"{mountebank}/imposters/{port}").status_code == 404, "it was not taken down"
        return carried

    return break_bank


def test_a_stub_that_fails_twice_is_asked_again(break_bank: Callable[..., Carried]) -> None:
    carried = break_bank(
        "expect response.status == 200\nexpect retry shop -> bank { attempts == 3, recovered }\n"
        "expect every try shop -> bank[http.response.status_code == 200] has duration >= 50ms",
        FAILING, RESET, GOOD,
    )  # fmt: skip
    assert carried.outcome is Outcome.PASS, (carried.reasons, carried.finished.error)


def test_a_proof_that_fails_leaves_no_stub_behind(break_bank: Callable[..., Carried]) -> None:
    carried = break_bank("expect response.status == 200\nexpect retry shop -> bank { recovered }", RESET)
    assert carried.outcome is Outcome.FAIL
    assert carried.finished.error is None


def test_a_stub_that_cannot_be_set_up_is_an_error(break_bank: Callable[..., Carried]) -> None:
    carried = break_bank("expect some shop", '{ "is": { "statusCode": 200, "_mode": 1 }, "fault": 1 }, 7')
    assert carried.outcome is Outcome.ERROR
    assert "`before` was answered with 400" in carried.error
