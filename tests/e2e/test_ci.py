"""CI integrations: the GitHub action, the pre-commit hooks, and the examples of docs/ci.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from spanproof.api.cli.main import app
from spanproof.api.cli.report_options import read_report_targets
from spanproof.tests.command import COMMAND, FREE, Service
from spanproof.tests.e2e.github import Runner
from spanproof.tests.e2e.schemas import find_schema_errors
from spanproof.tests.ports import find_free_address

REPOSITORY = Path(__file__).parents[2]
ACTION = REPOSITORY / "action.yml"
PAGE = (REPOSITORY / "docs/ci.md").read_text()
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)]
WORKFLOW, GITLAB, PRE_COMMIT = EXAMPLES
PROOFS = """
let base = "nowhere"
let token = "none"

proof "the bank is called" [smoke] {
  when GET "{base}/x"
  expect path shop -> bank
}

proof "the shop calls payments" [smoke] {
  when GET "{base}/x" { header "x-token": token }
  expect path shop -> payments
}

proof "not selected" {
  when GET "{base}/x"
  expect no path shop -> bank
}
"""


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("github-actions", yaml.safe_load(ACTION.read_text())),
        ("github-workflows", {**WORKFLOW, "on": WORKFLOW[True]}),  # YAML 1.1 reads `on` as true
        ("gitlab-ci", GITLAB),
    ],
    ids=["action", "workflow", "gitlab"],
)
def test_files_match_their_schemas(name: str, document: dict[Any, Any]) -> None:
    document.pop(True, None)
    assert find_schema_errors(name, document) == []


# ## The action


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Return a runner in the state after the action's first step, as far as the second step needs it."""
    for folder in ("workspace", "temp/spanproof/bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "temp/spanproof/bin/spanproof").symlink_to(COMMAND)
    return Runner(ACTION, tmp_path / "workspace", tmp_path / "temp")


def test_action_applies_its_inputs(runner: Runner, tmp_path: Path, service: Service) -> None:
    folder = tmp_path / "workspace/more checks"
    folder.mkdir()
    folder.joinpath("shop.proof").write_text(PROOFS)
    folder.joinpath("ci.env").write_text("A=b\n")
    http = find_free_address()
    service.export_to(http)
    ran = runner.run_step(
        "Carry out proofs",
        {
            "working-directory": "more checks", "paths": "shop.proof\n", "tags": "smoke\n", "keyword": "the",
            "var": f"base={service.base_url}\n", "secret": "token=$(touch harm); ${{ x }}\n", "retries": "1",
            "workers": "2", "inconclusive": "fail", "reports": "junit=junit.xml,json=report.json", "env-file": "ci.env",
            "otlp-grpc": FREE, "otlp-http": http,
        },
    )  # fmt: skip
    assert ran.returncode == 1, ran
    assert runner.output.read_text() == "exit-code=1\n"
    assert "::error file=shop.proof,line=12" in ran.stdout
    assert "the shop calls payments" in runner.summary.read_text()
    report = json.loads(folder.joinpath("report.json").read_text())
    assert report["counts"] == {"pass": 1, "fail": 1, "inconclusive": 0, "error": 0, "flaky": 0}
    assert [len(proof["tries"]) for proof in report["run"]["proofs"]] == [0, 1]
    assert sorted(path.name for path in folder.iterdir()) == ["ci.env", "junit.xml", "report.json", "shop.proof"]


def test_action_needs_no_inputs(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "workspace/a.proof").write_text('proof "p" {\n  when run "true"\n  expect response.status == 0\n}\n')
    free_ports = {"otlp-grpc": FREE, "otlp-http": FREE}  # the default ports may be in use
    ran = runner.run_step("Carry out proofs", free_ports)
    assert ran.returncode == 0, ran
    assert runner.output.read_text() == "exit-code=0\n"


def test_action_passes_all_inputs() -> None:
    action = yaml.safe_load(ACTION.read_text())
    used = re.findall(r"inputs\.([\w-]+)", json.dumps(action["runs"]))
    assert sorted(used) == sorted(action["inputs"])
    documented = re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.M)))
    assert sorted(documented) == sorted(action["inputs"])


def test_action_defaults_match_the_command() -> None:
    inputs = yaml.safe_load(ACTION.read_text())["inputs"]
    help_text = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["run", "--help"]).stdout
    for name in ("otlp-grpc", "otlp-http", "inconclusive", "workers", "retries"):
        assert re.search(rf"--{name} .*default: {re.escape(inputs[name]['default'])}", " ".join(help_text.split()))


# ## pre-commit

HOOKS = REPOSITORY / ".pre-commit-hooks.yaml"


def test_hooks_find_problems_and_format_proofs(tmp_path: Path) -> None:
    """Run the hooks with pre-commit itself, but with the program of this environment."""
    hooks = yaml.safe_load(HOOKS.read_text())
    local = {"repo": "local", "hooks": [{**hook, "language": "unsupported"} for hook in hooks]}
    (tmp_path / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [local]}))
    (tmp_path / "other.txt").write_text("proof {")
    (tmp_path / "good.proof").write_text('proof "p" {\nwhen run "true"\nexpect response.status == 0\n}\n')
    (tmp_path / "wrong.proof").write_text('proof "p" {\n  when run "true"\n}\n')
    run_in(tmp_path, "git", "init", "--quiet")
    run_in(tmp_path, "git", "add", ".")
    assert run_in(tmp_path, "pre-commit", "validate-manifest", HOOKS) == (0, "")
    code, out = run_in(tmp_path, "pre-commit", "run", "--all-files")
    assert (code, out.count("Failed")) == (1, 2), out
    assert "error[nothing-expected]" in out
    assert "formatted good.proof" in out
    assert "files were modified by this hook" in out

    run_in(tmp_path, "git", "add", ".")
    code, out = run_in(tmp_path, "pre-commit", "run", "spanproof-fmt", "--all-files")
    assert (code, out.count("Passed")) == (0, 1), out


def test_documented_configuration_names_existing_hooks(tmp_path: Path) -> None:
    (repo,) = PRE_COMMIT["repos"]
    assert [hook["id"] for hook in repo["hooks"]] == [hook["id"] for hook in yaml.safe_load(HOOKS.read_text())]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(PRE_COMMIT))
    assert run_in(tmp_path, "pre-commit", "validate-config", "config.yaml") == (0, "")


def run_in(folder: Path, *command: object) -> tuple[int, str]:
    programs = Path(sys.executable).parent
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PRE_COMMIT_HOME": str(folder / ".hooks")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


# ## GitLab


def test_gitlab_job_writes_its_artifacts() -> None:
    (command,) = GITLAB["proofs"]["script"]
    program, name, *arguments = shlex.split(command)
    assert program == "spanproof"
    parsed = get_command(app).get_command(None, name).make_context(name, arguments).params
    reports = {target.report_format: str(target.path) for target in read_report_targets(parsed["report"])}
    artifacts = GITLAB["proofs"]["artifacts"]
    assert artifacts["reports"]["junit"] == reports["junit"]
    assert artifacts["paths"] == [reports["html"]]
