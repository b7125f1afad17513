"""Variables from outside, windows without traces, and windows that grow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from spanproof.collector.storage.store import Store
from spanproof.tests.api.stored_traces import MS, ZERO_NS, StoredSpan, append, open_client
from spanproof.tests.command import FREE_PORTS, Finished

PROOF = """\
let version
proof "p" {
  given traces over last 1h where resource.service.version == version
  expect no span[error]
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.proof"
    path.write_text(PROOF, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "x.proof:1: `let version` needs a value: --var version=…"),
        (
            ("--var", "version=1", "--var", "verson=1"),
            "no proof reads the variable `verson`; did you mean `version`?",
        ),
    ],
)
def test_run_rejects_variables(
    spanproof: Callable[..., Finished], path: Path, options: tuple[str, ...], message: str
) -> None:
    ran = spanproof("run", path, *FREE_PORTS, *options)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_gate_rejects_variables_before_it_asks(spanproof: Callable[..., Finished], path: Path) -> None:
    ran = spanproof("gate", path, "--var", "verson=1", "--server", "http://127.0.0.1:9")
    assert (ran.code, ran.out) == (2, "")
    assert "no proof reads the variable `verson`" in ran.err


def test_api_rejects_variables() -> None:
    with Store.open() as store, open_client(store) as client:
        unread = client.post("/api/v1/runs", json={"proof": PROOF, "variables": {"version": "1", "b": "2"}})
        assert (unread.status_code, unread.json()["detail"]) == (422, "no proof reads the variable `b`")
        missing = client.post("/api/v1/gate", json={"proof": PROOF})
        assert missing.status_code == 422
        assert "`let version` needs a value" in missing.json()["detail"]


# ## Windows without traces, and windows that grow


def ask(client: httpx.Client, claim: str, **looks: int) -> tuple[str, str]:
    text = f'proof "p" {{\n  given traces over last 1h\n  expect {claim}\n}}\n'
    answer = client.post("/api/v1/gate", json={"proof": text, **looks}).json()
    (verdict,) = answer["run"]["proofs"][0]["verdicts"]
    return answer["outcome"], verdict["reason"]


@pytest.mark.parametrize("claim", ["no span[error]", "count(traces) == 0", "no path a -> b", "rate(a) < 1/s"])
def test_window_without_traces_decides_nothing(claim: str) -> None:
    with Store.open() as store, open_client(store) as client:
        assert ask(client, claim) == ("inconclusive", "the window contains no trace")


def test_claim_that_more_traces_could_turn_fails_only_at_the_last_evaluation() -> None:
    with Store.open() as store, open_client(store) as client:
        now_ms = (time.time_ns() - ZERO_NS) // MS
        append(store, *(StoredSpan("a", "GET /", trace, ms=(now_ms - 9, now_ms)) for trace in (1, 2)))
        time.sleep(0.4)  # a trace that grows is not judged
        assert ask(client, "count(traces) >= 3")[0] == "fail"
        assert ask(client, "count(traces) >= 3", looks=2, look=1)[0] == "inconclusive"
        assert ask(client, "count(traces) >= 3", looks=2, look=2)[0] == "fail"
        # a counterexample stays one
        assert ask(client, "no a", looks=2, look=1)[0] == "fail"
        assert ask(client, "rate(a) < 1/s")[0] == "pass"
