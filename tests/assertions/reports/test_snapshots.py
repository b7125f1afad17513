"""Snapshot tests: each report of each outcome, as files in `snapshots`."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from lxml import etree
from msgspec import structs
from rich.console import Console

from spanproof import __version__
from spanproof.assertions.reports.documents import RunDocument, describe_proof
from spanproof.assertions.reports.github import render_annotations, render_step_summary
from spanproof.assertions.reports.html_report import render_html
from spanproof.assertions.reports.json_report import describe_report, render_json, write_schema
from spanproof.assertions.reports.junit import render_junit
from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.run.events import RunFinished
from spanproof.tests.assertions.reports.sample_run import (
    FAILED,
    FINISHED,
    MS,
    PASSED,
    TRACE,
    UNDECIDED,
    finish,
    make_run,
)

HERE = Path(__file__).parent
SCHEMA = HERE.parents[2] / "assertions" / "reports" / "report.schema.json"
ENDINGS = ("pass", "fail", "inconclusive", "error", "flaky")
FORMS: dict[str, Callable[[str], str]] = {
    "terminal.txt": lambda ending: print_run(ending),
    "junit.xml": lambda ending: render_junit(make_run(ending)).decode(),
    "report.json": lambda ending: render_json(make_run(ending)).decode(),
    "report.html": lambda ending: remove_shared_parts(render_html(make_run(ending)).decode()),
    "annotations.txt": lambda ending: render_annotations(make_run(ending)),
    "summary.md": lambda ending: render_step_summary(make_run(ending)),
}


def remove_shared_parts(page: str) -> str:
    """Return a page without the style and script that all pages share."""
    page = re.sub(r"(<(style|script)>).*?(</\2>)", r"\1…\3", page, flags=re.DOTALL)
    return re.sub(r"'sha256-[^']*'", "'sha256-…'", page)


def print_run(ending: str) -> str:
    out = io.StringIO()
    report = TerminalReport(Console(file=out, width=100, highlight=False, soft_wrap=True))
    event = FINISHED[ending]
    report(event)
    report(RunFinished((event.outcome,), 1_500 * MS, int(event.flaky)))
    return out.getvalue()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("form", FORMS)
def test_reports_match_snapshots(form: str, ending: str) -> None:
    """TESTS_RENEW rewrites the snapshots; review the changes."""
    path = HERE / "snapshots" / ending / form
    rendered = FORMS[form](ending).replace(__version__, "VERSION")
    if os.environ.get("TESTS_RENEW"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rendered.encode())
    assert rendered == path.read_bytes().decode()


@pytest.fixture(scope="module")
def all_outcomes() -> RunDocument:
    return make_run(*ENDINGS)


def test_junit_matches_schema(all_outcomes: RunDocument) -> None:
    schema = etree.XMLSchema(etree.parse(HERE / "junit.xsd"))
    for run in (all_outcomes, make_run(), *(make_run(ending) for ending in ENDINGS)):
        schema.assertValid(etree.fromstring(render_junit(run)))
    root = etree.fromstring(render_junit(all_outcomes))
    (suite,) = root
    assert dict(suite.attrib) == {
        "name": "checks/checkout.proof", "timestamp": "2026-01-31T12:00:00",
        "tests": "5", "failures": "1", "errors": "1", "skipped": "1", "time": "6.170",
    }  # fmt: skip
    assert [[child.tag for child in case] for case in suite] == [
        [], ["failure"], ["skipped"], ["error"], ["flakyError", "flakyFailure", "system-out"],
    ]  # fmt: skip


def test_junit_schema_rejects_invalid_documents() -> None:
    schema = etree.XMLSchema(etree.parse(HERE / "junit.xsd"))
    for invalid in (
        "<testsuites><testcase name='a'/></testsuites>",
        "<testsuites><testsuite name='a' tests='1' failures='0' errors='0'><case/></testsuite></testsuites>",
        "<testsuites><testsuite name='a' tests='x' failures='0' errors='0'/></testsuites>",
        "<testsuites><testsuite name='a'/></testsuites>",
    ):
        assert not schema.validate(etree.fromstring(invalid)), invalid


def test_json_matches_schema(all_outcomes: RunDocument) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for run in (all_outcomes, make_run()):
        validator.validate(json.loads(render_json(run)))
    report = json.loads(render_json(all_outcomes))
    assert report["counts"] == {"pass": 2, "fail": 1, "inconclusive": 1, "error": 1, "flaky": 1}
    del report["run"]["proofs"][0]["outcome"]
    assert not validator.is_valid(report)


def test_shipped_schema_matches_report() -> None:
    if os.environ.get("TESTS_RENEW"):
        SCHEMA.write_text(write_schema(), encoding="utf-8")
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == describe_report()


def test_page_is_self_contained(all_outcomes: RunDocument) -> None:
    page = etree.HTML(render_html(all_outcomes))
    assert page.xpath("//link | //img | //iframe | //*[@src] | //a[not(starts-with(@href, '#'))]") == []
    templates = SCHEMA.parent / "templates"
    (style,), (script,) = (page.xpath(f"//{name}/text()") for name in ("style", "script"))
    assert style == (templates / "report.css").read_text(encoding="utf-8")
    assert "url(" not in style
    assert script == (templates / "report.js").read_text(encoding="utf-8")
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy


def test_page_is_accessible(all_outcomes: RunDocument) -> None:
    page = etree.HTML(render_html(all_outcomes))
    assert page.xpath("string(/html/@lang)") == "en"
    assert page.xpath("string(//title)") == "error: 5 proofs – spanproof"
    assert page.xpath("//details[@class and contains(@class, 'proof ')]/@data-outcome") == list(ENDINGS)
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))
    assert [each for each in page.xpath("//input") if not each.xpath("ancestor::label")] == []
    assert page.xpath("//table[not(thead/tr/th[@scope='col'])] | //tbody/tr[not(th[@scope='row'])]") == []


def test_page_says_which_spans_have_not_ended() -> None:
    open_ = dataclasses.replace(TRACE.spans[3], duration_ns=None)
    event = finish(*FAILED, view=dataclasses.replace(TRACE, spans=(*TRACE.spans[:3], open_)))
    page = etree.HTML(render_html(dataclasses.replace(make_run(), proofs=(describe_proof(event),))))
    assert page.xpath("//td[@class='time']/text()") == ["612 ms", "587 ms", "36 ms", "not ended"]
    assert page.xpath("//section[@class='trace']/p/text()") == ["at least 612 ms; 2 spans inside services not shown"]
    assert page.xpath("//div[@class='bar open']/@style") == ["--start: 9.80%; --width: 90.20%"]


def test_page_escapes_markup(all_outcomes: RunDocument) -> None:
    page = etree.HTML(render_html(all_outcomes))
    assert "GET /stock?a=1&b=<2>" in page.xpath("//span[@class='operation']/text()")


def test_documented_report_matches_schema() -> None:
    page = (HERE.parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    jsonschema.validate(json.loads(example), describe_report())


def test_summary_stays_below_github_limit(all_outcomes: RunDocument) -> None:
    run = dataclasses.replace(all_outcomes, proofs=all_outcomes.proofs[1:2] * 3000)
    summary = render_step_summary(run)
    assert len(summary.encode()) < 2**20
    shown = summary.count("\n### ")
    assert 100 < shown < 3000
    assert summary.endswith(f"\n\n{3000 - shown} more proofs did not pass; the other reports contain them.\n")


def test_reports_name_failed_claim_before_inconclusive_one() -> None:
    mixed = finish(PASSED[0], UNDECIDED[1], FAILED[2])
    run = dataclasses.replace(
        make_run(), proofs=(describe_proof(mixed), describe_proof(structs.replace(FINISHED["pass"], tries=(mixed,))))
    )
    root = etree.fromstring(render_junit(run))
    assert root.xpath("//failure/@message | //flakyFailure/@message") == [FAILED[2].reason] * 2
    assert f"before: {FAILED[2].reason}" in render_annotations(run)


def test_annotation_is_one_line(all_outcomes: RunDocument) -> None:
    lines = render_annotations(all_outcomes).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::error", "::warning"]
    assert all("file=checks/checkout.proof,line=" in line for line in lines)
