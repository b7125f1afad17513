"""`spanproof demo`: its output and reports, and a complete cleanup."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from lxml import etree

from spanproof.assertions.reports.json_report import describe_report
from spanproof.examples.shop.services import SERVICES
from spanproof.tests.command import Finished, Running, find_in_session, wait_until

Starter = Callable[..., Running]
WRONG = """\
let base = env("SHOP_URL")

proof "an unknown order is found" {
  when GET "{base}/orders/no-such-order"
  settle within 10s
  expect response.status == 200
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def finished(folder: Path) -> Finished:
    arguments = ("demo", "--report", "junit=junit.xml,json=report.json", "--report", "html=report.html,github")
    running = Running(arguments, folder, {"GITHUB_STEP_SUMMARY": str(folder / "summary.md")}, cold=True)
    try:
        return running.finish()
    finally:
        running.close()


def test_proofs_get_expected_verdicts(finished: Finished) -> None:
    assert finished.code == 0, finished
    assert finished.err == ""
    assert re.search(r"^\d+ proofs got their expected verdict, 3 of them a failure$", finished.out, re.MULTILINE)
    assert re.search(r"^\d+ proofs: \d+ passed, 3 failed in ", finished.out, re.MULTILINE)


@pytest.mark.parametrize(
    "claim",
    [
        "✓ path gateway -> orders -> { inventory, payments -> bank }   in 1 trace",
        "✓ path gateway -> orders ~> notifications   in 1 trace",
        '✓ duration(gateway "POST /checkout") < 800ms   ',
        "✓ retry payments -> bank { attempts == 3, backoff >= 100ms, backoff grows, exhausted }   1 call, 3 attempts",
        "✓ fallback payments -> bank => bank-backup   1 call fell back",
    ],
)
def test_claims_pass(finished: Finished, claim: str) -> None:
    assert claim in finished.out


def test_failures_show_position_and_trace(finished: Finished) -> None:
    failures = re.split(r"^(?=FAIL )", finished.out, flags=re.MULTILINE)[1:]
    assert len(failures) == 3
    for failure in failures:
        assert re.search(r"^fail\[[a-z-]+\]: ", failure, re.MULTILINE)
        assert re.search(r"^ +\| [ -]+\^+ ", failure, re.MULTILINE)
        assert re.search(r"^ +gateway +POST /checkout +[·█]{26} ", failure, re.MULTILINE)
        assert re.search(r"^   !! ", failure, re.MULTILINE)
        assert "rerun:" not in failure  # the shop has stopped


def test_reports_agree_with_output(finished: Finished, folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, describe_report())
    names = [proof["name"] for proof in report["run"]["proofs"]]
    failed = [proof["name"] for proof in report["run"]["proofs"] if proof["outcome"] == "fail"]
    assert len(failed) == 3

    junit = etree.parse(folder / "junit.xml")
    etree.XMLSchema(etree.parse(Path(__file__).parents[1] / "assertions" / "reports" / "junit.xsd")).assertValid(junit)
    assert sorted(junit.xpath("//testcase/@name")) == sorted(names)
    assert sorted(junit.xpath("//testcase[failure]/@name")) == sorted(failed)

    page = etree.HTML((folder / "report.html").read_bytes())
    assert page.xpath("//*[@class='name']/text()") == names
    assert len(page.xpath("//details[@data-outcome='fail']//table[@class='waterfall']")) == 3

    assert (
        len(re.findall(r"^::error file=.*examples/shop/proofs/\w+\.proof,line=\d+,", finished.out, re.MULTILINE)) >= 3
    )
    summary = (folder / "summary.md").read_text()
    assert summary.startswith(f"## spanproof: {len(names) - 3} passed, 3 failed\n")
    assert [name for name in failed if f"### ❌ {name}" not in summary] == []


def test_ctrl_c_stops_the_shop(start: Starter) -> None:
    running = start("demo")
    running.read_until("PASS ")
    assert len(find_in_session(running.pid)) >= len(SERVICES) + 1
    running.signal(signal.SIGINT)
    assert running.finish().code == 130
    wait_until(lambda: not find_in_session(running.pid), "the end of all started processes")


def test_ctrl_c_during_start_stops_the_shop(start: Starter) -> None:
    running = start("demo")
    running.read_until("nats is ready")
    assert find_in_session(running.pid)
    running.signal(signal.SIGINT)
    assert running.finish().code == 130
    wait_until(lambda: not find_in_session(running.pid), "the end of all started processes")


def test_unexpected_verdict_exits_with_1(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "wrong.proof").write_text(WRONG)
    ran = start("demo", "wrong.proof").finish()
    assert ran.code == 1, ran
    assert "unexpected verdict: an unknown order is found: expected pass, got fail" in ran.out


def test_invalid_proof_starts_no_shop(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "wrong.proof").write_text(WRONG.replace("==", "="))
    ran = start("demo", "wrong.proof").finish()
    assert ran.code == 2, ran
    assert "error[single-equals]" in ran.out
    assert "ready" not in ran.out
