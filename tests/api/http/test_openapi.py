"""Conformance of every operation with the OpenAPI document: Schemathesis against a running server.

`make fuzz` sends more requests, with new random values each time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from spanproof.collector.storage.store import Store
from spanproof.tests.api.stored_traces import StoredSpan, append
from spanproof.tests.command import FREE, FREE_PORTS, Running, find_address

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
HOOKS = "spanproof.tests.api.http.openapi_hooks"
EXAMPLES = os.environ.get("TESTS_FUZZ_API")
# the id of the document's examples, so that some requests find the trace
TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SPANS = (
    StoredSpan("gateway", "POST /orders", TRACE, 1, ms=(0, 400), resource={"service.version": "1.4.2"}),
    StoredSpan("gateway", "POST", TRACE, 2, 1, "client", (10, 390), error=True),
    StoredSpan(
        "payments", "POST /pay", TRACE, 3, 2, ms=(11, 389), attributes={"http.response.status_code": 500}, error=True
    ),
    StoredSpan("stock", "count", 2, 4, kind="internal", attributes={"tags": ["a", "b"], "share": 0.5}),
)


@pytest.mark.timeout(600)
def test_operations_conform_to_openapi(start: Callable[..., Running], tmp_path: Path) -> None:
    with Store.open(tmp_path / "spans.duckdb") as store:
        append(store, *SPANS)
    running = start("serve", *FREE_PORTS, "--api", FREE, "--db", "spans.duckdb")
    document = f"http://{find_address(running.read_line(), 'API')}/openapi.json"
    example_options = (
        ["--max-examples", EXAMPLES] if EXAMPLES else ["--max-examples", "10", "--generation-deterministic"]
    )
    ran = subprocess.run(
        [SCHEMATHESIS, "run", document, *example_options, "--request-timeout", "30", "--no-color"],
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": HOOKS, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    described = httpx.get(document, trust_env=False).json()["paths"]
    operations = sum(len(each.keys() & {"get", "post", "put", "patch", "delete"}) for each in described.values())
    assert re.search(rf"Selected: {operations}/{operations}\s+Tested: {operations}\s", ran.stdout), ran.stdout
    running.stop()
    assert running.finish().err == ""


def test_openapi_has_examples_and_problems(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path in ("/api/v1/traces", "/api/v1/traces/{trace_id}", "/api/v1/services", "/api/v1/calls"):
        responses = document["paths"][path]["get"]["responses"]
        answer = responses["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert document["components"]["schemas"][answer]["examples"], path
        assert {"422", "503"} <= responses.keys(), path
        assert all(list(responses[status]["content"]) == ["application/problem+json"] for status in ("422", "503"))


def test_wrong_method_gets_allowed_methods(client: httpx.Client) -> None:
    for method, path, allowed in (
        ("POST", "/healthz", "GET"),
        ("DELETE", "/api/v1/runs", "GET, POST"),
        ("PUT", "/api/v1/traces/4bf92f3577b34da6a3ce929d0e0e4736", "GET"),
        ("GET", "/api/v1/query", "POST"),
        ("POST", "/api/search", "GET"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), path
        assert answer.headers["content-type"] == "application/problem+json"
