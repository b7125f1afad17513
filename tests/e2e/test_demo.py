"""`spanproof demo`: what a newcomer sees first, and that nothing is left of it afterwards."""

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

proof "an order that is not there is found" {
  when GET "{base}/orders/no-such-order"
  settle within 10s
  expect response.status == 200
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(folder: Path) -> Finished:
    arguments = ("demo", "--report", "junit=junit.xml,json=report.json", "--report", "html=report.html,github")
    running = Running(arguments, folder, {"GITHUB_STEP_SUMMARY": str(folder / "summary.md")}, cold=True)
    try:
        return running.finish()
    finally:
        running.close()


def test_every_proof_gets_the_verdict_it_should(shown: Finished) -> None:
    assert shown.code == 0, shown
    assert shown.err == ""
    assert re.search(r"^\d+ proofs got their expected verdict, 3 of them a failure$", shown.out, re.MULTILINE)
    assert re.search(r"^\d+ proofs: \d+ passed, 3 failed in ", shown.out, re.MULTILINE)


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
def test_a_path_a_latency_a_retry_and_a_fallback_are_proved(shown: Finished, claim: str) -> None:
    assert claim in shown.out


def test_each_failure_shows_its_place_and_its_trace(shown: Finished) -> None:
    failures = re.split(r"^(?=FAIL )", shown.out, flags=re.MULTILINE)[1:]
    assert len(failures) == 3
    for failure in failures:
        assert re.search(r"^error\[[a-z-]+\]: ", failure, re.MULTILINE)
        assert re.search(r"^ +\| [ -]+\^+ ", failure, re.MULTILINE)
        assert re.search(r"^ +gateway +POST /checkout +[·█]{26} ", failure, re.MULTILINE)
        assert re.search(r"^   !! ", failure, re.MULTILINE)
        assert "= rerun: spanproof run " in failure


def test_the_reports_of_the_shop_say_the_same(shown: Finished, folder: Path) -> None:
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

    assert len(re.findall(r"^::error file=.*examples/shop/proofs/\w+\.proof,line=\d+,", shown.out, re.MULTILINE)) >= 3
    summary = (folder / "summary.md").read_text()
    assert summary.startswith(f"## spanproof: {len(names) - 3} passed, 3 failed\n")
    assert [name for name in failed if f"### ❌ {name}" not in summary] == []


def test_ctrl_c_stops_the_whole_shop(start: Starter) -> None:
    running = start("demo")
    running.read_until("PASS ")
    assert len(find_in_session(running.pid)) >= len(SERVICES) + 1
    running.signal(signal.SIGINT)
    assert running.finish().code == 130
    wait_until(lambda: not find_in_session(running.pid), "the end of all that it started")


def test_ctrl_c_while_the_shop_opens_stops_what_was_started(start: Starter) -> None:
    running = start("demo")
    running.read_until("nats is ready")
    assert find_in_session(running.pid)
    running.signal(signal.SIGINT)
    assert running.finish().code == 130
    wait_until(lambda: not find_in_session(running.pid), "the end of all that it started")


def test_a_proof_with_another_verdict_than_it_should_leaves_with_1(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "wrong.proof").write_text(WRONG)
    ran = start("demo", "wrong.proof").finish()
    assert ran.code == 1, ran
    assert "not as it should be: an order that is not there is found: must pass, got fail" in ran.out


def test_a_proof_that_cannot_be_read_opens_no_shop(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "wrong.proof").write_text(WRONG.replace("==", "="))
    ran = start("demo", "wrong.proof").finish()
    assert ran.code == 2, ran
    assert "error[single-equals]" in ran.out
    assert "ready" not in ran.out
