"""`spanproof run`: reports, retries, workers, secrets, environments, and watch mode."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from spanproof.api.cli.main import app
from spanproof.api.cli.report_options import ReportTarget, read_report_targets, write_reports
from spanproof.api.commands.run import RunOptionGroup, compute_exit_code
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.run.env_file import read_env_file
from spanproof.tests.assertions.reports.sample_run import make_run
from spanproof.tests.command import FREE_PORTS, Finished, Running, wait_until

Command = Callable[..., Finished]
Starter = Callable[..., Running]
RUNS = """\
proof "{name}" {{
  when run "{command}"
  expect response.status == 0
}}
"""


@pytest.fixture
def runs(write: Callable[[str, str], Path]) -> Callable[..., Path]:
    """Write a file of proofs; each runs a command that must exit with 0."""

    def runs(name: str = "p", **commands: str) -> Path:
        text = "\n".join(RUNS.format(name=proof, command=command) for proof, command in commands.items())
        return write(f"{name}.proof", text)

    return runs


# ## Reports


def test_one_run_writes_all_reports(spanproof: Command, runs: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("# before\n")
    ran = spanproof(
        "run", runs(good="true", bad="exit 7"), "--report", "junit=junit.xml,json=report.json", "--report",
        "html=report.html,github", *FREE_PORTS, GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"),
    )  # fmt: skip
    assert ran.code == 1, ran
    assert ran.err == ""
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"] == {"pass": 1, "fail": 1, "inconclusive": 0, "error": 0, "flaky": 0}
    assert (report["run"]["outcome"], report["run"]["ended_ns"] > report["run"]["started_ns"]) == ("fail", True)
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures") == "1"  # noqa: S314 (our own)
    assert "response.status is 7, not == 0" in (tmp_path / "report.html").read_text()
    assert "::error file=p.proof,line=8,endLine=8,col=10,title=bad::response.status is 7, not == 0%0A" in ran.out
    assert (tmp_path / "summary.md").read_text().startswith("# before\n## spanproof: 1 passed, 1 failed\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "junit.xml", "p.proof", "report.html", "report.json", "summary.md",
    ]  # fmt: skip
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == (tmp_path / "summary.md").stat().st_mode & 0o777


def test_cold_start_prints_no_errors(start: Starter, runs: Callable[..., Path]) -> None:
    ran = start("run", runs(only="true"), *FREE_PORTS, cold=True).finish()
    assert (ran.code, ran.err) == (0, ""), ran


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_writes_report(
    start: Starter, runs: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    path = runs(first="true", second="touch begun; exec sleep 60", third="true")
    running = start("run", path, "--report", "json=report.json", *FREE_PORTS)
    wait_until((tmp_path / "begun").exists, "the second proof has started")
    running.signal(number)
    assert running.finish().code == 130
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(proof["name"], proof["error"]) for proof in report["run"]["proofs"]] == [
        ("first", None), ("second", "the run was cancelled"),
    ]  # fmt: skip
    assert report["run"]["outcome"] == "error"


def test_failed_report_does_not_block_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    lines: list[str] = []
    targets = (
        ReportTarget("junit", tmp_path / "gone" / "junit.xml"),
        ReportTarget("github", None),
        ReportTarget("json", tmp_path / "report.json"),
    )
    with pytest.raises(ValueError, match=r"gone/junit\.xml: No such file.*; --report: GITHUB_STEP_SUMMARY: Is a dir"):
        write_reports(targets, make_run("fail"), lines.append)
    assert json.loads((tmp_path / "report.json").read_text())["format"] == 1
    assert lines[0].startswith("::error ")


def test_github_annotations_need_no_summary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    lines: list[str] = []
    write_reports(read_report_targets(["github"]), make_run("flaky"), lines.append)
    assert lines[0].startswith("::warning file=checks/checkout.proof,line=1,")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("junitt=a.xml", "'junitt' is not a report format; did you mean `junit`?"),
        ("", "'' is not a report format; write junit=FILE"),
        ("junit", "junit needs a file: junit=FILE"),
        ("json=", "json needs a file"),
        ("github=x", "it takes no file"),
        ("junit=gone/a.xml", "gone: no such folder"),
        ("junit=.", ". is a folder"),
        ("junit=a.xml,json=./a.xml", "two reports have the same file"),
    ],
)
def test_invalid_reports_are_rejected(option: str, message: str) -> None:
    with pytest.raises(ValueError, match="^--report: .*" + re.escape(message)):
        read_report_targets([option])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "xml=a"], "spanproof: --report: 'xml' is not a report format; "),
        (["--secret", "key"], "spanproof: --secret is NAME=VALUE, not 'key'"),
        (["--workers", "0"], "--workers"),
        (["--workers", "many"], "--workers"),
        (["--retries", "-1"], "--retries"),
    ],
)
def test_invalid_options_exit_with_2(runs: Callable[..., Path], options: list[str], message: str) -> None:
    ran = CliRunner().invoke(app, ["run", str(runs(good="true")), *options, *FREE_PORTS])
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert message in ran.stderr


# ## Retries and parallel runs


def test_flaky_proof_is_reported_and_fails_with_option(spanproof: Command, runs: Callable[..., Path]) -> None:
    path = runs(shaky="test -e flag || (touch flag; exit 9)")
    ran = spanproof("run", path, "--fail-on-flaky", *FREE_PORTS, SPANPROOF_RETRIES="1")
    assert ran.code == 1, ran
    assert "FLAKY p.proof::shaky   1 passed" in ran.out
    assert "  try 1 of 2: fail   1 failed" in ran.out
    assert "fail[comparison]: response.status is 9, not == 0" in ran.out
    assert "1 proof: 1 flaky in" in ran.out


@pytest.mark.parametrize(
    ("outcomes", "flaky", "code"),
    [
        ([Outcome.PASS], False, 0),
        ([Outcome.PASS], True, 1),
        ([Outcome.INCONCLUSIVE], True, 1),
        ([Outcome.ERROR], True, 4),
    ],
)  # fmt: skip
def test_exit_code_is_the_worst(outcomes: list[Outcome], flaky: bool, code: int) -> None:
    assert compute_exit_code(outcomes, "keep", flaky=flaky) == code


def test_workers_run_proofs_in_parallel(spanproof: Command, runs: Callable[..., Path]) -> None:
    wait = (
        "n=0; touch {here}; until test -e {there} || test $n -gt 600; do n=$((n+1)); sleep 0.05; done; test -e {there}"
    )
    path = runs(a=wait.format(here="a", there="b"), b=wait.format(here="b", there="a"), c="true")
    ran = spanproof("run", path, "--workers", "2", *FREE_PORTS)
    assert ran.code == 0, ran
    assert re.findall(r"^PASS  p\.proof::(\w)", ran.out, re.M) == ["a", "b", "c"]


# ## Secrets and the environment


def test_secret_sets_variable_and_is_masked(
    spanproof: Command, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = write(
        "s.proof", 'let key = "x"\nproof "s" {\n  when run "no-such-{key}"\n  expect response.status == 0\n}\n'
    )
    ran = spanproof("run", path, "--secret", "key=hush-hush", "--report", "json=r.json,github", *FREE_PORTS)
    assert ran.code == 4, ran
    assert "no-such-***" in ran.out
    assert "hush" not in ran.out + ran.err + (tmp_path / "r.json").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RunOptionGroup(secret=["key=abc"]), "--secret key: a value of less than 4 letters cannot be masked"),
        (RunOptionGroup(secret=["key=long enough"], var=["key=x"]), "key is given by --var and by --secret"),
        (RunOptionGroup(inconclusive="maybe"), "--inconclusive is pass, fail or keep, not 'maybe'"),
        (RunOptionGroup(env_file=Path("gone.env")), "gone.env: No such file or directory"),
    ],
)
def test_invalid_values_are_rejected(options: RunOptionGroup, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        options.read_variables()


def test_env_file_extends_environment(spanproof: Command, write: Callable[[str, str], Path]) -> None:
    text = RUNS.format(name="e", command="test $FROM_FILE$OVER = ab").replace("}", '  expect env("OVER") == "b"\n}')
    path = write("e.proof", text)
    env_file = write("ci.env", "FROM_FILE=a\nOVER=from the file\n")
    ran = spanproof("run", path, "--env-file", env_file, *FREE_PORTS, OVER="b")
    assert ran.code == 0, ran


def test_env_file_syntax(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "# comment\n\nA=1\nexport B = two words # comment\nC='single # $X \\n'\n"
        'D="a\\tb\\"c\\\\" # comment\nE=\nF=a#b\nG=""\nH=#x\n'
    )
    assert read_env_file(path) == {
        "A": "1", "B": "two words", "C": "single # $X \\n", "D": 'a\tb"c\\', "E": "", "F": "a#b", "G": "", "H": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nnonsense\n", ".env:2: this is not NAME=VALUE"),
        ("1A=1\n", ".env:1: this is not NAME=VALUE"),
        ('A="open\n', ".env:1: the quote is not closed"),
        ("A='a' b\n", ".env:1: only a comment may follow the closing quote"),
    ],
)
def test_invalid_env_file_is_rejected_with_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        read_env_file(path)


# ## Watch mode


def test_saved_files_are_rerun(
    start: Starter, runs: Callable[..., Path], write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    write("checks/common.proof", 'let wanted = "0"\n')
    text = 'use "common.proof"\n' + RUNS.format(name="used", command="exit {wanted}")
    write("checks/user.proof", text)
    runs("checks/other", other="true")
    running = start("run", "checks", "--watch", *FREE_PORTS)
    waiting = "waiting for saved files"
    assert "2 proofs: 2 passed" in running.read_until(waiting)
    write("checks/common.proof", 'let wanted = "3"\n')
    shown = running.read_until(waiting)
    assert "response.status is 3, not == 0" in shown
    assert "1 proof: 1 failed" in shown
    runs("checks/other", other="exit 4", more="true")
    shown = running.read_until(waiting)
    assert "2 proofs: 1 passed, 1 failed" in shown
    assert "::used" not in shown
    write("checks/other.proof", "proof {")
    assert "error[" in running.read_until(waiting)
    (tmp_path / "checks" / "new.tmp").write_text(RUNS.format(name="new", command="true"))
    os.replace(tmp_path / "checks" / "new.tmp", tmp_path / "checks" / "other.proof")
    assert "PASS  checks/other.proof::new" in running.read_until(waiting)
    running.signal(signal.SIGINT)
    ended = running.finish()
    assert (ended.code, ended.err) == (0, "")
