"""Roles of tokens: ingest, read and run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from google.rpc.code_pb2 import PERMISSION_DENIED
from google.rpc.status_pb2 import Status

from spanproof.tests.command import FREE, FREE_PORTS, Finished, Running, find_address

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
FILE = """
sender  ingest        # the services
reader  read
runner  read, run     # the pipeline
owner
"""
PROOF = 'proof "p" { given traces over last 1h\n expect count(traces) == 0 }'
SENDS, READS, RUNS = {"sender", "owner"}, {"reader", "runner", "owner"}, {"runner", "owner"}
ALL_TOKENS = SENDS | READS | RUNS


@dataclass(frozen=True, slots=True)
class Server:
    grpc: str
    http: str
    api: str
    client: httpx.Client

    def ask(self, method: str, url: str, token: str, **more: object) -> int:
        return self.client.request(method, url, headers={"authorization": f"Bearer {token}"}, **more).status_code


@pytest.fixture
def server(start: Callable[..., Running], tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "tokens").write_text(FILE)
    line = start("serve", *FREE_PORTS, "--api", FREE, "--db", "spans.duckdb", "--token-file", "tokens").read_line()
    with httpx.Client(trust_env=False, timeout=60) as client:
        http, api = (f"http://{find_address(line, name)}" for name in ("OTLP/HTTP", "API"))
        yield Server(find_address(line, "OTLP/gRPC"), http, api, client)


def test_token_allows_its_roles_only(server: Server) -> None:
    requests = {
        ("POST", f"{server.http}/v1/traces"): (SENDS, {"json": {}}),
        ("GET", f"{server.api}/api/v1/runs"): (READS, {}),
        ("GET", f"{server.api}/metrics"): (READS, {}),
        ("GET", f"{server.api}/openapi.json"): (READS, {}),
        ("POST", f"{server.api}/api/v1/query"): (READS, {"json": {"query": "count(a) over last 1h"}}),
        ("POST", f"{server.api}/api/v1/runs"): (RUNS, {"json": {"proof": PROOF}}),
        ("POST", f"{server.api}/api/v1/gate"): (RUNS, {"json": {"proof": PROOF}}),
        ("POST", f"{server.api}/api/v1/runs/0123456789abcdef/cancel"): (RUNS, {}),
    }
    for (method, url), (allowed, more) in requests.items():
        for token in ALL_TOKENS:
            status = server.ask(method, url, token, **more)
            assert (status == 403) is (token not in allowed), (method, url, token, status)
            assert status != 401
        assert server.ask(method, url, "stranger", **more) == 401
    assert server.ask("GET", f"{server.api}/healthz", "stranger") == 200


def test_grpc_export_requires_role(server: Server) -> None:
    def send(token: str) -> grpc.StatusCode:
        with grpc.insecure_channel(server.grpc) as channel:
            try:
                channel.unary_unary(EXPORT)(b"", timeout=60, metadata=(("authorization", f"Bearer {token}"),))
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    assert {token: send(token) for token in ("sender", "owner", "reader", "stranger")} == {
        "sender": grpc.StatusCode.OK,
        "owner": grpc.StatusCode.OK,
        "reader": grpc.StatusCode.PERMISSION_DENIED,
        "stranger": grpc.StatusCode.UNAUTHENTICATED,
    }


def test_rejection_names_missing_role(server: Server) -> None:
    bearer = {"authorization": "Bearer reader"}
    refused = server.client.post(
        f"{server.http}/v1/traces", content=b"", headers={"content-type": "application/x-protobuf", **bearer}
    )
    assert Status.FromString(refused.content).code == PERMISSION_DENIED
    problem = server.client.post(f"{server.api}/api/v1/gate", json={"proof": PROOF}, headers=bearer).json()
    assert problem["detail"] == "this token does not allow this request: its role is not `run`"


def test_gate_command_reports_missing_role(server: Server, spanproof: Callable[..., Finished], tmp_path: Path) -> None:
    (tmp_path / "p.proof").write_text(PROOF)
    (tmp_path / "mine").write_text("reader")
    finished = spanproof("gate", "p.proof", "--server", server.api, "--token-file", "mine")
    assert (finished.code, finished.out) == (2, "")
    assert "this token does not allow this request" in finished.err


@pytest.mark.parametrize("line", ["abc admin", "abc read,write", "abc read; run"])
def test_unknown_role_is_rejected(spanproof: Callable[..., Finished], tmp_path: Path, line: str) -> None:
    (tmp_path / "tokens").write_text(f"ok\n{line}\n")
    finished = spanproof("serve", *FREE_PORTS, "--api", FREE, "--token-file", "tokens")
    assert finished.code == 2
    assert finished.err == "spanproof: tokens:2: unknown role after the token; the roles are ingest, read, run\n"
