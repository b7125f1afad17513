"""Proof files beyond a single request: steps, hooks, definitions, stored traces, contracts, commands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spanproof.collector.storage.store import Store
from spanproof.tests.command import Finished, Service

Write = Callable[[str, str], Path]
Prove = Callable[..., Finished]
BASE = 'let base = env("BASE_URL")\n'


def test_requests_run_in_order_and_pass_values(prove: Prove, write: Write, service: Service) -> None:
    path = write(
        "steps.proof",
        BASE
        + """
proof "two steps" {
  when GET "{base}/first" as first
  let state = response.json.state
  expect path shop "GET /first" -> bank
  when GET "{base}/{state}"
  expect path shop "GET /paid" -> bank
  expect no shop "GET /first"
  expect first.response.status == 200
  expect response.json.state == state
}
""",
    )
    ran = prove(path)
    assert ran.code == 0, ran
    assert service.requests == ["/first", "/paid"]
    assert "5 passed" in ran.out


HOOKS = """
before { when GET "{base}/seed" }
after { when GET "{base}/clean" }

proof "prepared" {
  before { when GET "{base}/stub" }
  after { when GET "{base}/unstub" }
  when GET "{base}/main"
  expect path shop "GET %s" -> bank
}
"""


@pytest.mark.parametrize(("path", "code"), [("/main", 0), ("/other", 1)])
def test_hooks_run_before_and_after_each_outcome(
    prove: Prove, write: Write, service: Service, path: str, code: int
) -> None:
    ran = prove(write("hooks.proof", BASE + HOOKS % path))
    assert ran.code == code, ran
    assert service.requests == ["/seed", "/stub", "/main", "/unstub", "/clean"]


def test_failing_before_hook_is_an_error(prove: Prove, write: Write, service: Service) -> None:
    ran = prove(write("hooks.proof", BASE + HOOKS.replace("/seed", "/fail") % "/main"))
    assert ran.code == 4, ran
    assert "`before` was answered with 500" in ran.out
    assert service.requests == ["/fail", "/unstub", "/clean"]


def test_definitions_of_used_file_are_applied(prove: Prove, write: Write) -> None:
    write("lib/common.proof", "let most = 5s\n\ndefine quick(svc, limit) {\n  expect duration(svc) < limit\n}\n")
    text = 'use "lib/common.proof"\n' + BASE
    text += '\nproof "x" {\n  when GET "{base}/a"\n  apply quick(shop, most)\n  apply quick(bank, 1ns)\n}\n'
    ran = prove(write("x.proof", text))
    assert ran.code == 1, ran
    assert "1 passed, 1 failed" in ran.out
    assert "common.proof:4:10" in ran.out
    assert "expect duration(svc) < limit" in ran.out


@pytest.mark.parametrize(
    ("used", "message"),
    [
        (None, "error[unreadable-use]"),
        ('use "x.proof"\n', "uses this file in turn"),
        ("let a = nobody\n", "error[broken-use]"),
    ],
)
def test_unusable_file_is_reported(
    spanproof: Callable[..., Finished], write: Write, used: str | None, message: str
) -> None:
    if used is not None:
        write("used.proof", used)
    path = write("x.proof", 'use "used.proof"\n\nproof "x" {\n  when GET "http://127.0.0.1:1/"\n  expect some a\n}\n')
    checked = spanproof("check", path)
    assert checked.code == 2
    assert message in checked.out


def test_stored_traces_are_judged_and_compared(prove: Prove, write: Write) -> None:
    first = write("first.proof", BASE + '\nproof "a" {\n  when GET "{base}/a"\n  expect path shop -> bank\n}\n')
    assert prove(first, "--db", "spans.duckdb").code == 0
    stored = write(
        "stored.proof",
        """
proof "stored" {
  given traces from shop "GET /a" over last 1h
  compare baseline from shop over last 2h
  expect count(traces) == 1
  expect path shop -> bank in >= 99% of traces
  expect error_rate(shop) not worse than baseline by 5pp
  expect max(duration(shop)) <= baseline * 1.1
  expect p95(duration(*)) < 10s by service
}

proof "not there" {
  given traces from shop "GET /b" over last 1h where resource.service.version == "2"
  expect error_rate(shop) < 1%
}

proof "long ago" {
  given traces from shop between "2020-01-01T00:00:00Z" and "2020-01-02"
  expect count(traces) == 0
}
""",
    )
    deadline = time.monotonic() + 30
    ran = prove(stored, "--db", "spans.duckdb")
    # a trace that may still grow is not judged
    while "stored.proof::stored   5 inconclusive" in ran.out and time.monotonic() < deadline:
        ran = prove(stored, "--db", "spans.duckdb")
    assert ran.code == 3, ran
    assert "stored.proof::stored   4 passed, 1 inconclusive" in ran.out
    assert "more would decide" in ran.out or "would decide" in ran.out
    assert "stored.proof::not there   1 inconclusive" in ran.out
    assert "stored.proof::long ago   1 inconclusive" in ran.out


def test_response_is_checked_against_contract(prove: Prove, write: Write) -> None:
    schema = {"type": "object", "properties": {"state": {"enum": ["paid"]}}}
    write("ok.json", json.dumps(schema))
    write("bad.json", json.dumps(schema | {"required": ["id"]}))
    text = BASE + '\nproof "x" {\n  when GET "{base}/a"\n  expect response matches schema "%s.json"\n}\n'
    assert prove(write("x.proof", text % "ok")).code == 0


def test_fmt_rewrites_files_and_check_reports_only(spanproof: Callable[..., Finished], write: Write) -> None:
    ugly, pretty = (
        'proof "x"{\nwhen GET "u"\n  expect count(a)==1}\n',
        'proof "x" {\n  when GET "u"\n  expect count(a) == 1 }\n',
    )
    path = write("x.proof", ugly)
    checked = spanproof("fmt", "--check", path)
    assert (checked.code, path.read_text()) == (1, ugly)
    assert spanproof("fmt", path).code == 0
    assert path.read_text() == pretty
    assert spanproof("fmt", "--check", path).code == 0
    broken = write("broken.proof", 'proof "x" {\n  expect =\n}\n')
    assert spanproof("fmt", broken).code == 2
    assert broken.read_text() == 'proof "x" {\n  expect =\n}\n'


def test_command_continues_trace(prove: Prove, write: Write, service: Service) -> None:
    ask = f"""
import os, urllib.request
headers = {{"traceparent": os.environ["TRACEPARENT"]}}
print(urllib.request.urlopen(urllib.request.Request("{service.base_url}/a", headers=headers)).read().decode())
"""
    write("ask.py", ask)
    text = """
proof "x" {
  when run "python3 ask.py"
  expect response.status == 0
  expect response.json.state == "paid"
  expect path shop "GET /a" -> bank
}

proof "y" {
  when run "no-such-command"
  expect some shop
}
"""
    ran = prove(write("x.proof", text))
    assert ran.code == 4, ran
    assert "x.proof::x   3 passed" in ran.out
    assert "`no-such-command` cannot be run" in ran.out


def test_stored_trace_is_judged_by_id(prove: Prove, write: Write) -> None:
    first = write("first.proof", BASE + '\nproof "a" {\n  when GET "{base}/a"\n  expect path shop -> nobody\n}\n')
    ran = prove(first, "--db", "spans.duckdb")
    trace_id = ran.out.split("= trace ")[1][:32]
    again = write("again.proof", f'proof "a" {{\n  when trace "{trace_id}"\n  expect path shop -> bank\n}}\n')
    assert prove(again, "--db", "spans.duckdb").code == 0
    wrong = write("wrong.proof", 'proof "a" {\n  when trace "abc"\n  expect path shop -> bank\n}\n')
    assert prove(wrong).code == 4


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--proxy", "bank"), 3)])
def test_sidecar_spans_are_not_callees(prove: Prove, write: Write, options: tuple[str, ...], code: int) -> None:
    text = BASE + '\nproof "x" {\n  when GET "{base}/a"\n  expect network(shop -> bank) < 1h\n}\n'
    assert prove(write("x.proof", text), *options).code == code


def test_rules_of_command_line_are_stored(prove: Prove, write: Write, tmp_path: Path) -> None:
    path = write("x.proof", BASE + '\nproof "x" {\n  when GET "{base}/a"\n  expect some shop\n}\n')
    options = (
        "--max-retry-gap", "1.5s", "--max-clock-skew", "0ms", "--circuit-marker", "breaker.refused", "--edge", "web",
        "--retried-call", "a -> b", "--distinct-call", "a -> c",
    )  # fmt: skip
    assert prove(path, "--db", "spans.duckdb", *options).code == 0
    with Store.open(tmp_path / "spans.duckdb") as store:
        row = store.cursor().execute(
            "SELECT max_retry_gap_ns, max_clock_skew_ns, circuit_markers[-1], edges, retried_calls, distinct_calls"
            " FROM rules"
        )
        assert row.fetchone() == (1_500_000_000, 0, "breaker.refused", ["web"], ["a -> b"], ["a -> c"])


@pytest.mark.parametrize("wrong", [("--max-retry-gap", "soon"), ("--max-clock-skew", "-1ms"), ("--max-retry-gap", "5")])
def test_invalid_rule_is_rejected(spanproof: Callable[..., Finished], write: Write, wrong: tuple[str, str]) -> None:
    path = write("x.proof", BASE + '\nproof "x" {\n  when GET "{base}/a"\n  expect some shop\n}\n')
    ran = spanproof("run", path, *wrong)
    assert (ran.code, ran.out) == (2, "")
    assert f"{wrong[0]}: " in ran.err
    assert wrong[1] in ran.err


def test_open_address_is_rejected(spanproof: Callable[..., Finished], write: Write) -> None:
    path = write("x.proof", BASE + '\nproof "x" {\n  when GET "{base}/a"\n  expect some a\n}\n')
    ran = spanproof("run", path, "--otlp-grpc", "0.0.0.0:0")
    assert (ran.code, ran.out) == (2, "")
    assert "--insecure-no-auth" in ran.err
