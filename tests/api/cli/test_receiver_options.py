"""Receiver options of `run` and `serve`, and the service rules of `serve`."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from typer.testing import CliRunner

from spanproof.api.cli.main import app
from spanproof.collector.storage.store import Store
from spanproof.tests.api.send_spans import JSON, make_request
from spanproof.tests.collector.receive.raw_connection import send_http
from spanproof.tests.command import FREE, FREE_PORTS, Finished, Running, find_address, wait_until

Starter = Callable[..., Running]
WAITS = 'proof "p" {\n  when run "while [ ! -e go ]; do sleep 0.02; done"\n  expect response.status == 0\n}\n'
PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture
def running(tmp_path: Path) -> Callable[..., object]:
    """Return a context in which a started run waits; the run ends afterwards."""
    (tmp_path / "waits.proof").write_text(WAITS)

    @contextmanager
    def running(started: Running) -> Iterator[str]:
        yield find_address(started.read_line().replace("https", "http"), "HTTP")
        (tmp_path / "go").touch()
        ended = started.finish()
        assert (ended.code, ended.err) == (0, "")

    return running


def test_run_applies_authentication_and_redaction(
    start: Starter, running: Callable[..., Iterator[str]], tmp_path: Path
) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client")
    server.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    server.private_key_pem.write_to_path(str(tmp_path / "key"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    client.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client"))
    (tmp_path / "rules").write_text("key user.*\n")
    trusting, admitted = (ssl.create_default_context(cafile=tmp_path / "ca") for _ in range(2))
    admitted.load_cert_chain(tmp_path / "client")
    started = start(
        "run", "waits.proof", *FREE_PORTS, "--db", "spans.duckdb", "--tls-cert", "cert", "--tls-key", "key",
        "--tls-client-ca", "ca", "--cors-origin", "https://a.example", "--redact", "password", "--redact-value",
        "hunter2", "--redact-file", "rules",
    )  # fmt: skip
    with running(started) as http:
        url = f"https://{http}/v1/traces"
        with (
            httpx.Client(verify=trusting, trust_env=False) as client_without_certificate,
            pytest.raises(httpx.HTTPError),
        ):
            client_without_certificate.post(url, content=b"{}", headers=JSON)
        with httpx.Client(verify=admitted, trust_env=False) as client_with_certificate:
            body = make_request(
                **{"password": "secret-1", "note": "x hunter2 y", "user.email": "secret-2", "ok": "kept"}
            )
            response = client_with_certificate.post(
                url, content=body, headers=PROTOBUF | {"origin": "https://a.example"}
            )
            assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "https://a.example")
    with Store.open(tmp_path / "spans.duckdb") as store:
        ((texts,),) = store.cursor().execute("SELECT attributes.texts FROM spans").fetchall()
    assert "kept" in texts
    assert not [text for text in texts if "secret" in text or "hunter2" in text]


def test_run_applies_limits(start: Starter, running: Callable[..., Iterator[str]]) -> None:
    started = start(
        "run", "waits.proof", *FREE_PORTS, "--max-message-bytes", "2000", "--max-bytes-in-flight", "3000",
        "--max-connections", "1", "--receive-timeout", "0.3",
    )  # fmt: skip
    with running(started) as http:
        url = f"http://{http}/v1/traces"
        with httpx.Client(trust_env=False) as client:
            sizes = {
                size: client.post(url, content=b"{}" + b" " * size, headers=JSON).status_code for size in (10, 2100)
            }
            assert sizes == {10: 200, 2100: 413}
            assert httpx.post(url, content=b"{}", headers=JSON, trust_env=False).status_code == 503
        wait_until(lambda: send_http(http, b"GET /healthz HTTP/1.1\r\n").startswith(b"HTTP/1.1 408 "), "too slow")


def test_serve_applies_rules_and_memory_limit(start: Starter, tmp_path: Path) -> None:
    serving = start(
        "serve", *FREE_PORTS, "--api", FREE, "--db", "spans.duckdb", "--proxy", "envoy", "--max-retry-gap", "1.5s",
        "--max-clock-skew", "0ms", "--circuit-marker", "breaker.refused", "--memory", "128MB", "--keep-below", "64MiB",
        "--edge", "gateway", "--retried-call", "a -> b", "--distinct-call", "* -> c",
    )  # fmt: skip
    api = find_address(serving.read_line(), "API")
    assert httpx.get(f"http://{api}/readyz", trust_env=False).status_code == 200
    serving.stop()
    with Store.open(tmp_path / "spans.duckdb") as store:
        row = store.cursor().execute(
            "SELECT proxies, max_retry_gap_ns, max_clock_skew_ns, circuit_markers[-1], edges, retried_calls,"
            " distinct_calls FROM rules"
        )
        assert row.fetchone() == (
            ["envoy"], 1_500_000_000, 0, "breaker.refused", ["gateway"], ["a -> b"], ["* -> c"],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--memory", "1MB"), "--memory: 1MB is too small, the minimum is 128MB"),
        (("--keep-below", "1MB"), "--keep-below: 1MB is too small, the minimum is 64MiB"),
        (("--max-retry-gap", "soon"), "--max-retry-gap: `soon` is not a duration"),
        (("--max-clock-skew", "-1ms"), "--max-clock-skew: -1ms is negative"),
        (("--retried-call", "a"), "--retried-call: `a` is not a call, such as `orders -> payments`"),
        (("--distinct-call", "a ~> b"), "--distinct-call: `a ~> b` is not a call, such as `orders -> payments`"),
        (("--proxy", "a[b]"), '--proxy: `a[b]` is not a sidecar, such as `envoy` or `orders[scope.name == "dapr"]`'),
    ],
)
def test_serve_rejects_invalid_limits(option: tuple[str, str], message: str) -> None:
    ran = CliRunner().invoke(app, ["serve", *option])
    assert (ran.exit_code, ran.stdout, ran.stderr) == (2, "", f"spanproof: {message}\n")


@pytest.mark.parametrize("option", ["--max-message-bytes", "--max-bytes-in-flight", "--max-connections"])
def test_limit_must_be_positive(spanproof: Callable[..., Finished], option: str) -> None:
    for value in ("0", "-1", "many"):
        ran = spanproof("serve", option, value)
        assert ran.code == 2
        assert option in ran.err
