"""Runs and gates over HTTP: execution, event streams, history, and rejection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from spanproof.collector.storage.store import Store
from spanproof.tests.api.http.gateway import make_service_requests, store_requests
from spanproof.tests.api.stored_traces import open_client
from spanproof.tests.command import FREE, FREE_PORTS, Finished, Running, Service, find_address

HEALTHY = """proof "healthy" [deploy] {
  given traces from gateway over last 1h where resource.service.version == "1.4.2"
  expect count(gateway) >= 100
  expect p95(duration(gateway)) < 200ms with confidence 95%
}
"""
SICK = HEALTHY.replace("healthy", "sick").replace("200ms", "20ms")
UNSURE = HEALTHY.replace("healthy", "unsure").replace("p95(duration(gateway)) < 200ms", "error_rate(gateway) < 3%")
MIXED = UNSURE.replace("unsure", "mixed").replace(
    "\n}", "\n  expect p95(duration(gateway)) < 20ms with confidence 95%\n}"
)
REQUESTING = 'proof "asks" {{ when GET "{url}"\n expect response.status == 200 }}\n'
SLOW = 'proof "slow" { when trace "0af7651916cd43dd8448eb211c80319c"\n settle within 300s\n expect some gateway }\n'


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    client: httpx.Client

    def run(self, proof: str, wait: str = "60s", **more: object) -> httpx.Response:
        return self.client.post(f"{self.url}/api/v1/runs", params={"wait": wait}, json={"proof": proof, **more})

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(f"{self.url}/api/v1{path}", headers=headers)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "spans.duckdb"
    store_requests(path, make_service_requests("gateway", 200, errors=4))
    return path


@pytest.fixture
def server(db: Path) -> Iterator[Server]:
    with Store.open(db) as stored, open_client(stored) as client:
        yield Server(str(client.base_url).rstrip("/"), client)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=90, trust_env=False) as client:
        yield client


def test_run_is_executed_and_stored(server: Server) -> None:
    answer = server.run(HEALTHY + SICK)
    assert answer.status_code == 201
    run = answer.json()
    assert answer.headers["location"] == f"/api/v1/runs/{run['id']}"
    assert (run["origin"], run["outcome"]) == ("api", "fail")
    assert [(proof["name"], proof["outcome"]) for proof in run["proofs"]] == [("healthy", "pass"), ("sick", "fail")]
    verdict = run["proofs"][1]["verdicts"][1]
    assert verdict["claim"] == "p95(duration(gateway)) < 20ms with confidence 95%"
    assert (verdict["outcome"], verdict["kind"], verdict["n"]) == ("fail", "latency", 200)
    assert verdict["position"] == {
        "path": "sent.proof", "line": 9, "column": 10, "end_line": 9, "end_column": 39,
    }  # fmt: skip

    kept = server.get(f"/runs/{run['id']}")
    assert kept.json() == run
    assert server.get(f"/runs/{run['id']}", **{"if-none-match": kept.headers["etag"]}).status_code == 304

    (suite,) = ElementTree.fromstring(server.get(f"/runs/{run['id']}/junit").content)  # noqa: S314 (our own)
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "2", "failures": "1", "errors": "0", "skipped": "0",
    }  # fmt: skip
    failure = suite.find(".//failure")
    assert failure is not None
    assert "sent.proof:9:10: fail[" in (failure.text or "")


def read_events(server: Server, run_id: str, **headers: str) -> list[tuple[str, dict[str, object]]]:
    events = []
    with server.client.stream("GET", f"{server.url}/api/v1/runs/{run_id}/events", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    return events


def test_verdicts_are_streamed(server: Server) -> None:
    run = server.run(HEALTHY, wait="0s").json()
    assert (run["outcome"], run["ended_ns"]) == (None, None)
    events = read_events(server, run["id"])
    names = [name for name, _ in events]
    # a listener that connects after the end receives only the last event
    assert names in (["proof", "verdict", "verdict", "proof_finished", "run"], ["run"])
    assert events[-1][1]["outcome"] == "pass"
    assert [name for name, _ in read_events(server, run["id"])] == ["run"]


def test_run_can_be_streamed_and_cancelled(server: Server) -> None:
    run = server.run(SLOW, wait="0s").json()
    with server.client.stream("GET", f"{server.url}/api/v1/runs/{run['id']}/events") as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("event: ")) == "event: proof"
        assert next(line for line in lines if line.startswith("event: ")) == "event: waiting"
        assert server.client.post(f"{server.url}/api/v1/runs/{run['id']}/cancel").status_code == 202
        data = [line for line in lines if line.startswith("data: ")][-1]
    ended = json.loads(data.removeprefix("data: "))
    assert (ended["outcome"], ended["proofs"][0]["error"]) == ("error", "the run was cancelled")


def test_stopping_server_ends_runs(db: Path, client: httpx.Client, start: Callable[..., Running]) -> None:
    running = start("serve", "--db", db, *FREE_PORTS, "--api", FREE)
    url = f"http://{find_address(running.read_line(), 'API')}"
    server = Server(url, client)
    run = server.run(SLOW, wait="0s").json()
    begin = time.monotonic()
    running.stop()
    assert time.monotonic() - begin < 60
    again = start("serve", "--db", db, *FREE_PORTS, "--api", FREE)
    url = f"http://{find_address(again.read_line(), 'API')}"
    assert Server(url, client).get(f"/runs/{run['id']}").json()["outcome"] == "error"


def test_proof_history(server: Server) -> None:
    for limit in ("200ms", "20ms", "200ms", "20ms"):
        server.run(HEALTHY.replace("200ms", limit))
    server.run(UNSURE)
    first = server.get("/runs?limit=3").json()
    assert [run["outcome"] for run in first["runs"]] == ["inconclusive", "fail", "pass"]
    rest = server.client.get(f"{server.url}/api/v1/runs", params={"cursor": first["next"]}).json()
    assert ([run["outcome"] for run in rest["runs"]], rest["next"]) == (["fail", "pass"], None)
    assert [run["outcome"] for run in server.get("/runs?outcome=pass").json()["runs"]] == ["pass", "pass"]

    by_name = {each["name"]: each for each in server.get("/proofs").json()}
    healthy = by_name["healthy"]
    assert (healthy["runs"], healthy["outcomes"]) == (4, {"pass": 2, "fail": 2})
    assert (healthy["last_outcome"], healthy["flips"], healthy["flaky"]) == ("fail", 3, True)
    assert healthy["failing_since_ns"] == healthy["last_started_ns"]
    assert 0 < healthy["median_ns"] <= healthy["slowest_ns"]
    assert (by_name["unsure"]["flaky"], by_name["unsure"]["last_outcome"]) == (False, "inconclusive")

    failures = {each["kind"]: each["n"] for each in server.get("/failures?every=30d").json()}
    assert failures == {"latency": 2, "incomplete": 1}


@pytest.mark.parametrize(
    ("proof", "outcome", "code"), [(HEALTHY, "pass", 0), (SICK, "fail", 1), (UNSURE, "inconclusive", 3)]
)
def test_gate_returns_outcome_and_exit_code(server: Server, proof: str, outcome: str, code: int) -> None:
    gate = server.client.post(f"{server.url}/api/v1/gate", json={"proof": proof}).json()
    assert (gate["outcome"], gate["decided"], gate["exit_code"]) == (outcome, outcome != "inconclusive", code)
    assert gate["run"]["origin"] == "gate"


def test_more_evaluations_require_higher_confidence(server: Server) -> None:
    proof = HEALTHY.replace("p95(duration(gateway)) < 200ms", "error_rate(gateway) < 6%")

    def evaluate(looks: int) -> tuple[str, str]:
        run = server.client.post(f"{server.url}/api/v1/gate", json={"proof": proof, "looks": looks}).json()["run"]
        verdict = run["proofs"][0]["verdicts"][1]
        return verdict["outcome"], verdict["reason"]

    assert evaluate(1)[0] == "pass"
    outcome, reason = evaluate(50)
    assert outcome == "inconclusive"
    assert "99.9% confidence" in reason
    assert "would decide" in reason


def test_gate_command(server: Server, spanproof: Callable[..., Finished], tmp_path: Path) -> None:
    for name, proof in (("healthy", HEALTHY), ("sick", SICK), ("unsure", UNSURE), ("mixed", MIXED)):
        (tmp_path / f"{name}.proof").write_text(proof)
    passed = spanproof("gate", "healthy.proof", "--server", server.url)
    assert (passed.code, passed.err) == (0, "")
    assert passed.out.startswith("PASS healthy.proof::healthy\n  ✓ count(gateway) >= 100\n    200 (n = 200)\n")
    failed = spanproof("gate", "sick.proof", "--server", server.url, "--for", "60s", "--every", "20s")
    assert failed.code == 1
    assert failed.out.startswith("evaluation 1 of 4: fail; p95(duration(gateway)) < 20ms")
    # the failed claim is named, not the inconclusive one above it
    mixed = spanproof("gate", "mixed.proof", "--server", server.url, "--for", "60s", "--every", "60s")
    assert mixed.out.startswith("evaluation 1 of 2: fail; p95(duration(gateway)) < 20ms with confidence 95%: ")
    assert mixed.out.splitlines()[0].endswith("; and 1 more")
    unsure = spanproof(
        "gate", "unsure.proof", "--server", server.url, "--for", "2s", "--every", "1s", "--until-decided"
    )
    assert unsure.code == 3
    assert [line[:17] for line in unsure.out.splitlines()[:3]] == [f"evaluation {n} of 3" for n in (1, 2, 3)]
    decided = spanproof(
        "gate", "healthy.proof", "--server", server.url, "--for", "60s", "--every", "1s", "--until-decided"
    )
    assert (decided.code, decided.out.count("evaluation ")) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.proof",), "nowhere.proof: No such file"),
        (("healthy.proof", "--every", "0s"), "--for and --every are positive durations"),
        (("healthy.proof", "--for", "long"), "--for: "),
        (("healthy.proof", "--var", "x"), "--var is NAME=VALUE"),
    ],
)
def test_gate_command_rejects_invalid_arguments(
    server: Server,
    spanproof: Callable[..., Finished],
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "healthy.proof").write_text(HEALTHY)
    finished = spanproof("gate", *arguments, "--server", server.url)
    assert (finished.code, finished.out) == (2, "")
    assert message in finished.err


def test_gate_command_prints_diagnostics(server: Server, spanproof: Callable[..., Finished], tmp_path: Path) -> None:
    (tmp_path / "broken.proof").write_text('proof "x" { given traces over last 1h\n expect duration(a) < 5 }')
    broken = spanproof("gate", "broken.proof", "--server", "http://127.0.0.1:9")
    assert (broken.code, broken.err) == (2, "")
    assert "error[type-mismatch]" in broken.out
    (tmp_path / "asks.proof").write_text(REQUESTING.format(url="http://127.0.0.1:9/"))
    asks = spanproof("gate", "asks.proof", "--server", server.url)
    assert (asks.code, asks.err) == (2, "")
    assert asks.out.startswith(
        "error[not-allowed]: this server does not send requests for clients\n --> asks.proof:1:16\n  = help: "
    )


def test_invalid_proof_is_a_problem_with_positions(server: Server) -> None:
    refused = server.run('proof "x" {\n  given traces over last 1h\n  expect duration(gateway) < 5\n}')
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    (diagnostic,) = refused.json()["diagnostics"]
    assert (diagnostic["id"], diagnostic["line"]) == ("type-mismatch", 3)
    assert server.run("let a = 1").json()["detail"] == "the text contains no proof"
    assert server.run(HEALTHY, looks=3).status_code == 422
    assert "wait: " in server.run(HEALTHY, wait="soon").json()["detail"]
    assert server.get("/runs?colour=red").status_code == 422
    large = server.run(HEALTHY, variables={"x": "y" * 3 * 2**20})
    assert (large.status_code, large.headers["content-type"]) == (413, "application/problem+json")
    assert server.get("/runs/0123456789abcdef").status_code == 404
    assert server.get("/runs/0123456789abcdef/events").status_code == 404
    assert server.get("/runs?cursor=xyz").status_code == 422
    assert server.get("/runs").json() == {"runs": [], "next": None}


def test_requests_are_sent_to_allowed_targets_only(
    server: Server, client: httpx.Client, start: Callable[..., Running], service: Service, db: Path
) -> None:
    asks = REQUESTING.format(url=f"{service.base_url}/silent")
    assert server.run(asks).json()["diagnostics"][0]["id"] == "not-allowed"
    target = service.base_url.removeprefix("http://")
    line = start("serve", "--db", ":memory:", *FREE_PORTS, "--api", FREE, "--allow-target", target).read_line()
    allowed = Server(f"http://{find_address(line, 'API')}", client)
    run = allowed.run(asks).json()
    assert run["proofs"][0]["verdicts"][0]["outcome"] == "pass"
    elsewhere = allowed.run(REQUESTING.format(url="http://127.0.0.1:9/")).json()
    assert elsewhere["proofs"][0]["error"] == "127.0.0.1:9 is not a target that this server may call"
    for trigger in ('grpc "127.0.0.1:9" "a.B/C"', 'publish nats "a" { broker "nats://127.0.0.1:9" }'):
        elsewhere = allowed.run(f'proof "asks" {{ when {trigger}\n expect response.status == 0 }}\n').json()
        assert elsewhere["proofs"][0]["error"] == "127.0.0.1:9 is not a target that this server may call"
    many = allowed.run(asks.replace('"\n', '" { repeat 4 at 10/s }\n', 1), wait="0s").json()
    events = read_events(allowed, many["id"])
    assert [data for name, data in events if name == "sending"][-1] == {"done": 4, "total": 4}
    assert events[-1][1]["outcome"] == "pass"
    assert len(service.requests) == 5


def test_run_command_stores_its_runs(db: Path, spanproof: Callable[..., Finished], tmp_path: Path) -> None:
    (tmp_path / "both.proof").write_text(HEALTHY + SICK)
    assert spanproof("run", "both.proof", "--db", db, *FREE_PORTS).code == 1
    with Store.open(db) as stored, open_client(stored) as client:
        (run,) = client.get("/api/v1/runs").json()["runs"]
        assert (run["origin"], run["outcome"], run["proofs"]) == ("run", "fail", {"pass": 1, "fail": 1})
        kept = client.get(f"/api/v1/runs/{run['id']}").json()
        assert [(proof["path"], proof["name"]) for proof in kept["proofs"]] == [
            ("both.proof", "healthy"),
            ("both.proof", "sick"),
        ]
