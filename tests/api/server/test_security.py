"""Authentication, TLS, CORS, limits and redaction of a running server."""

from __future__ import annotations

import re
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization as keys
from google.rpc.status_pb2 import Status
from typer.testing import CliRunner

from spanproof.api.cli.main import app
from spanproof.api.cli.server_connection import ServerError
from spanproof.collector.receive.addresses import split_address
from spanproof.tests.api.send_spans import JSON, make_request
from spanproof.tests.collector.receive.raw_connection import send_http
from spanproof.tests.command import FREE, FREE_PORTS, Finished, Running, find_address, wait_until

Command = Callable[..., Finished]
Starter = Callable[..., Running]

SERVE = ("serve", *FREE_PORTS, "--api", FREE, "--db", "spans.duckdb")
OPEN = ("serve", "--otlp-grpc", "0.0.0.0:0", "--otlp-http", "0.0.0.0:0", "--api", "0.0.0.0:0", "--db", "spans.duckdb")
TRACE_ID = "01" * 16
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
COUNT = "count(traces) over last 1h"
GATE = 'proof "p" {\n  given traces over last 1h\n  expect no nobody\n}\n'


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    running: Running
    grpc: str
    http: str
    api: str


@pytest.fixture
def serve(start: Starter) -> Callable[..., Served]:
    def serve(*arguments: object, base: tuple[str, ...] = SERVE) -> Served:
        running = start(*base, *arguments)
        line = running.read_line()
        return Served(running, *(find_address(line.replace("https", "http"), name) for name in ("gRPC", "HTTP", "API")))

    return serve


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pem(authority: trustme.CA, tmp_path: Path) -> dict[str, Path]:
    """Return the files of a server and a client, and those of another authority."""
    other = trustme.CA()
    blobs = {
        "ca": authority.cert_pem,
        "client": authority.issue_cert("client").private_key_and_cert_chain_pem,
        "other-ca": other.cert_pem,
        "other-key": other.issue_cert("localhost").private_key_pem,
        "stranger": other.issue_cert("client").private_key_and_cert_chain_pem,
    }
    server = authority.issue_cert("localhost", "127.0.0.1")
    blobs |= {"cert": server.cert_chain_pems[0], "key": server.private_key_pem}
    for name, blob in blobs.items():
        blob.write_to_path(str(tmp_path / name))
    key = keys.load_pem_private_key(server.private_key_pem.bytes(), None)
    locked = key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, keys.BestAvailableEncryption(b"hush"))
    (tmp_path / "locked").write_bytes(locked)
    return {name: tmp_path / name for name in blobs}


def post(url: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/traces", content=b"{}", headers=JSON | headers, trust_env=False, timeout=10)


def export(address: str, *metadata: tuple[str, str]) -> grpc.StatusCode:
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(EXPORT)(make_request(), metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


# ## Tokens


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# of the shop\nshop-1\n\nbank-2==  # of the bank\n")
    return path


def test_exports_and_queries_require_a_token(serve: Callable[..., Served], tokens: Path) -> None:
    served = serve("--token-file", tokens)
    for authorization, admitted in (
        ("Bearer shop-1", True),
        ("bearer bank-2==", True),
        ("Bearer shop", False),
        ("Bearer shop-12", False),
        ("Bearer #", False),
        ("Bearer", False),
        ("Basic shop-1", False),
        ("shop-1", False),
        (None, False),
    ):
        headers = {"authorization": authorization} if authorization else {}
        assert export(served.grpc, *headers.items()) is (
            grpc.StatusCode.OK if admitted else grpc.StatusCode.UNAUTHENTICATED
        )
        answer = post(f"http://{served.http}", **headers)
        assert (answer.status_code, answer.headers.get("www-authenticate")) == (
            (200, None) if admitted else (401, "Bearer")
        )
        answer = httpx.get(f"http://{served.api}/api/v1/traces/{TRACE_ID}", headers=headers, trust_env=False)
        assert (answer.status_code, answer.headers.get("www-authenticate")) == (
            (200, None) if admitted else (401, "Bearer")
        )


def test_rejection_without_token_names_the_remedy(serve: Callable[..., Served], tokens: Path) -> None:
    served = serve("--token-file", tokens)
    needed = "this server requires a known token: authorization: Bearer TOKEN"
    assert post(f"http://{served.http}").json() == {"code": 16, "message": needed}
    assert Status.FromString(
        post(f"http://{served.http}", **{"content-type": "application/x-protobuf"}).content
    ).message == needed  # fmt: skip
    with grpc.insecure_channel(served.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(EXPORT)(bytes(10**6))
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, needed)
    with grpc.insecure_channel(served.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/nothing/at.all")(b"")
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED  # an unauthenticated client cannot probe for methods
    answer = httpx.get(f"http://{served.api}/docs", trust_env=False)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["title"], answer.json()["status"]) == ("a token is required", 401)


def test_health_needs_no_token(serve: Callable[..., Served], tokens: Path) -> None:
    served = serve("--token-file", tokens)
    for path in ("healthz", "readyz"):
        assert httpx.get(f"http://{served.api}/{path}", trust_env=False).status_code == 200


def test_large_request_without_token_gets_response(serve: Callable[..., Served], tokens: Path) -> None:
    served = serve("--token-file", tokens)
    answer = httpx.post(f"http://{served.http}/v1/traces", content=bytes(20 * 2**20), headers=JSON, trust_env=False)
    assert answer.status_code == 401


def test_commands_authenticate_with_token_file(
    serve: Callable[..., Served], spanproof: Command, tokens: Path, tmp_path: Path
) -> None:
    served = serve("--token-file", tokens)
    assert export(served.grpc, ("authorization", "Bearer shop-1")) is grpc.StatusCode.OK
    url = f"http://{served.api}"
    assert "kept" in spanproof("trace", TRACE_ID, "--server", url, "--token-file", tokens).out
    queried = CliRunner().invoke(app, ["query", COUNT, "--server", url, "--token-file", str(tokens)])
    assert (queried.exit_code, queried.stderr) == (0, "")
    refused = spanproof("trace", TRACE_ID, "--server", url)
    assert refused == Finished(
        2, "", f"spanproof: {url} admits only clients with a valid token; name a file of tokens with --token-file\n"
    )
    missing = spanproof("trace", TRACE_ID, "--server", url, "--token-file", tmp_path / "none")
    assert missing == Finished(2, "", f"spanproof: {tmp_path / 'none'}: No such file or directory\n")


def test_run_has_same_receiver_options(start: Starter, tokens: Path, tmp_path: Path) -> None:
    proof = tmp_path / "p.proof"
    proof.write_text('proof "p" {\n  when GET "http://127.0.0.1:9/"\n  expect response.status == 200\n}\n')
    ran = start("run", proof, "--otlp-grpc", FREE, "--otlp-http", "0.0.0.0:0", "--token-file", tokens).finish()
    assert ran.code == 4  # the target does not answer, but the receiver was listening
    ran = start("run", proof, "--otlp-grpc", FREE, "--otlp-http", "0.0.0.0:0").finish()
    assert (ran.code, "--token-file" in ran.err) == (2, True)


# ## TLS


def trust(pem: dict[str, Path], certificate: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=pem["ca"])
    if certificate:
        context.load_cert_chain(pem[certificate])
    return context


def test_all_addresses_use_tls(serve: Callable[..., Served], spanproof: Command, pem: dict[str, Path]) -> None:
    served = serve("--tls-cert", pem["cert"], "--tls-key", pem["key"])
    with grpc.secure_channel(served.grpc, grpc.ssl_channel_credentials(pem["ca"].read_bytes())) as channel:
        assert channel.unary_unary(EXPORT)(make_request(), timeout=10) == b""
    with httpx.Client(verify=trust(pem), trust_env=False) as client:
        assert client.post(f"https://{served.http}/v1/traces", content=b"{}", headers=JSON).status_code == 200
        assert client.get(f"https://{served.api}/api/v1/traces/{TRACE_ID}").status_code == 200
    drawn = spanproof("trace", TRACE_ID, "--server", f"https://{served.api}", "--tls-ca", pem["ca"])
    assert (drawn.code, "kept" in drawn.out) == (0, True)
    assert spanproof("trace", TRACE_ID, "--server", f"https://{served.api}").code == 2  # not trusted
    assert export(served.grpc) is grpc.StatusCode.UNAVAILABLE  # without TLS
    for address in (served.http, served.api):
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{address}/healthz", trust_env=False)
    served.running.signal(signal.SIGTERM)
    assert served.running.finish().code == 0


def test_client_certificates_are_required(serve: Callable[..., Served], pem: dict[str, Path]) -> None:
    # also on an open address
    served = serve("--tls-cert", pem["cert"], "--tls-key", pem["key"], "--tls-client-ca", pem["ca"], base=OPEN)
    http, api, over_grpc = (f"localhost:{each.rpartition(':')[2]}" for each in (served.http, served.api, served.grpc))
    with httpx.Client(verify=trust(pem, "client"), trust_env=False) as client:
        assert client.post(f"https://{http}/v1/traces", content=b"{}", headers=JSON).status_code == 200
        assert client.get(f"https://{api}/healthz").status_code == 200
    for certificate in (None, "stranger"):
        for url in (f"https://{http}/v1/traces", f"https://{api}/healthz"):
            with (
                httpx.Client(verify=trust(pem, certificate), trust_env=False) as client,
                pytest.raises(httpx.HTTPError),
            ):
                client.get(url)
    blob, ca = pem["client"].read_bytes(), pem["ca"].read_bytes()
    for credentials, code in (
        (grpc.ssl_channel_credentials(ca, blob, blob), None),
        (grpc.ssl_channel_credentials(ca), grpc.StatusCode.UNAVAILABLE),
        (grpc.ssl_channel_credentials(ca, *[pem["stranger"].read_bytes()] * 2), grpc.StatusCode.UNAVAILABLE),
    ):
        with grpc.secure_channel(over_grpc, credentials) as channel:
            try:
                status = None
                channel.unary_unary(EXPORT)(make_request(), timeout=10)
            except grpc.RpcError as error:
                status = error.code()
            assert status is code
    url, ca_file, cert_file = f"https://{api}", str(pem["ca"]), str(pem["client"])
    drawn = CliRunner().invoke(app, ["trace", TRACE_ID, "--server", url, "--tls-ca", ca_file, "--tls-cert", cert_file])
    assert (drawn.exit_code, "kept" in drawn.stdout) == (0, True)
    queried = CliRunner().invoke(app, ["query", COUNT, "--server", url, "--tls-ca", ca_file, "--tls-cert", cert_file])
    assert (queried.exit_code, queried.stderr) == (0, "")
    (pem["ca"].parent / "gate.proof").write_text(GATE)
    proof = str(pem["ca"].parent / "gate.proof")
    gated = CliRunner().invoke(app, ["gate", proof, "--server", url, "--tls-ca", ca_file, "--tls-cert", cert_file])
    assert (gated.exit_code, "nobody" in gated.stdout, gated.stderr) == (3, True, "")
    with pytest.raises(ServerError, match="no server answers"):
        CliRunner().invoke(app, ["gate", proof, "--server", url, "--tls-ca", ca_file], catch_exceptions=False)


def test_client_without_tls_handshake_is_disconnected(serve: Callable[..., Served], pem: dict[str, Path]) -> None:
    served = serve("--tls-cert", pem["cert"], "--tls-key", pem["key"], "--receive-timeout", "0.3")
    assert send_http(served.http) == send_http(served.api) == b""


# ## Web pages


def test_cors_allows_listed_origins_only(serve: Callable[..., Served], tokens: Path) -> None:
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    closed = serve()
    answer = httpx.options(f"http://{closed.http}/v1/traces", headers=preflight | {"origin": "https://a.example"})
    assert answer.status_code == 405
    assert [name for name in answer.headers if name.startswith("access-control")] == []
    assert "access-control-allow-origin" not in post(f"http://{closed.http}", origin="https://a.example").headers
    closed.running.stop()

    served = serve("--cors-origin", "https://a.example", "--cors-origin", "http://b.example:81", "--token-file", tokens)
    for origin, allowed in (("https://a.example", True), ("http://b.example:81", True), ("https://c.example", False)):
        answer = httpx.options(f"http://{served.http}/v1/traces", headers=preflight | {"origin": origin})
        assert answer.status_code == (200 if allowed else 400)
        assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
        response = post(f"http://{served.http}", origin=origin, authorization="Bearer shop-1")
        assert response.headers.get("access-control-allow-origin") == (origin if allowed else None)
    unknown = post(f"http://{served.http}", origin="https://a.example")
    assert (unknown.status_code, unknown.headers["access-control-allow-origin"]) == (401, "https://a.example")


# ## Limits


def test_configured_size_limit_applies(serve: Callable[..., Served]) -> None:
    served = serve("--max-message-bytes", "2000")
    for size, status in ((1900, 200), (2100, 413)):
        body = b"{}" + b" " * (size - 2)
        assert httpx.post(f"http://{served.http}/v1/traces", content=body, headers=JSON).status_code == status
    with grpc.insecure_channel(served.grpc) as channel:
        export = channel.unary_unary(EXPORT)
        assert export(make_request(k="x" * 1000)) == b""
        with pytest.raises(grpc.RpcError) as error:
            export(make_request(k="x" * 2100))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_receive_timeout_disconnects_slow_clients(serve: Callable[..., Served]) -> None:
    served = serve("--receive-timeout", "0.3")
    for address in (served.http, served.api):
        assert send_http(address, b"GET /healthz HTTP/1.1\r\n").startswith(b"HTTP/1.1 408 ")


def test_connections_are_limited(serve: Callable[..., Served]) -> None:
    served = serve("--max-connections", "1")
    for address in (served.http, served.api):
        with httpx.Client(base_url=f"http://{address}", trust_env=False) as client:
            client.get("/healthz")
            assert httpx.get(f"http://{address}/healthz", trust_env=False).status_code == 503
    with grpc.insecure_channel(served.grpc) as first:
        assert first.unary_unary(EXPORT)(make_request(), timeout=10) == b""
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        with grpc.insecure_channel(served.grpc, options) as second, pytest.raises(grpc.RpcError) as error:
            second.unary_unary(EXPORT)(make_request(), timeout=5)
        assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_bytes_in_flight_are_limited(serve: Callable[..., Served]) -> None:
    served = serve("--max-bytes-in-flight", "1000")
    head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n"
    with socket.create_connection(split_address(served.http)) as slow:
        slow.sendall(head + b" " * 800)
        small = {"content": b"{}" + b" " * 300, "headers": JSON, "trust_env": False}
        wait_until(lambda: httpx.post(f"http://{served.http}/v1/traces", **small).status_code == 503, "a rejection")
    wait_until(lambda: httpx.post(f"http://{served.http}/v1/traces", **small).status_code == 200, "an acceptance")


# ## Redaction


def test_redacted_values_never_reach_disk(serve: Callable[..., Served], tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("key user.*\nvalue card-[0-9]+\n")
    served = serve("--redact", "password", "--redact-value", "hunter2", "--redact-file", rules)
    secrets = {"password": "secret-1", "note": "x hunter2 y", "user.email": "secret-2", "why": "card-123456"}
    body = make_request(**secrets, fine="visible-1")
    answer = httpx.post(
        f"http://{served.http}/v1/traces", content=body, headers={"content-type": "application/x-protobuf"}
    )
    assert answer.status_code == 200
    served.running.signal(signal.SIGKILL)  # so the write-ahead log remains
    served.running.finish()
    written = b"".join(path.read_bytes() for path in tmp_path.glob("spans.duckdb*"))
    assert len(list(tmp_path.glob("spans.duckdb*"))) == 2
    assert b"visible-1" in written
    assert [word for word in (b"secret-1", b"secret-2", b"hunter2", b"123456") if word in written] == []


# ## Errors in one line


@pytest.mark.parametrize("command", ["serve", "run"])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--token-file", "none"], "none: No such file or directory"),
        (["--token-file", "empty"], "empty: the file contains no token"),
        (["--token-file", "spaced"], r"spaced:2: unknown role after the token; the roles are ingest, read, run"),
        (["--token-file", "binary"], "binary: not text in UTF-8"),
        (["--tls-cert", "cert"], "TLS needs both a certificate and its key"),
        (["--tls-key", "key"], "TLS needs both a certificate and its key"),
        (["--tls-client-ca", "ca"], "TLS needs both a certificate and its key"),
        (["--tls-cert", "none", "--tls-key", "key"], "none: No such file or directory"),
        (["--tls-cert", "cert", "--tls-key", "other-key"], "cert and other-key cannot be used: .*mismatch"),
        (["--tls-cert", "empty", "--tls-key", "key"], "empty and key cannot be used: .*"),
        (["--tls-cert", "cert", "--tls-key", "locked"], "locked: the key is encrypted; decrypt it first.*"),
        (["--tls-cert", "cert", "--tls-key", "key", "--tls-client-ca", "empty"], "empty cannot be used: .*"),
        (["--cors-origin", "a.example"], "'a.example' is not an origin; .*"),
        (["--cors-origin", "https://a.example/"], "'https://a.example/' is not an origin; .*"),
        (["--redact", ""], "a redaction rule is empty"),
        (["--redact-value", "("], r"'\(' is not a regular expression \(RE2\): missing \): \("),
        (["--redact-value", "a|"], r"'a\|' also matches the empty text; .*"),
        (["--redact-file", "none"], "none: No such file or directory"),
        (["--redact-file", "empty"], "empty: the file contains no rule"),
        (["--redact-file", "spaced"], "spaced:2: a rule is `key NAME` or `value REGEX`, not 'a b'"),
        (["--redact-file", "bad-rule"], r"bad-rule:1: '\[' is not a regular expression .*"),
        (["--otlp-http", "0.0.0.0:0"], "0.0.0.0:0 can be reached from other machines; add --token-file or .*"),
    ],
)  # fmt: skip
def test_invalid_options_exit_with_2(
    spanproof: Command, pem: dict[str, Path], tmp_path: Path, command: str, arguments: list[str], problem: str
) -> None:
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "spaced").write_text("#\na b\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "bad-rule").write_text("value [\n")
    ran = spanproof(command, *FREE_PORTS, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(f"spanproof: {problem}\n", ran.err), ran.err
    assert list(tmp_path.glob("*.duckdb")) == []
