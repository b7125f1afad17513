"""The GitHub action installs the checkout that it is part of."""

from __future__ import annotations

import shutil
from pathlib import Path

from spanproof.tests.e2e.github import Runner

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("__init__.py", "py.typed", "api", "assertions", "collector", "examples", "query_lang")


def test_action_installs_its_checkout(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "action.yml", *PACKAGES):
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, checkout / name)
    (tmp_path / "temp").mkdir()
    runner = Runner(checkout / "action.yml", tmp_path, tmp_path / "temp")
    # the test of the Dockerfile installs the dependencies, from the same constraints
    ran = runner.run_step("Install spanproof", {"extras": "nats,kafka,rabbitmq"}, PIP_NO_DEPS="1")
    assert (ran.returncode, ran.stderr) == (0, "")
    installed = tmp_path / "temp/spanproof"
    assert (installed / "bin/spanproof").is_file()
    assert list(installed.glob("lib/*/site-packages/spanproof/assertions/reports/report.schema.json"))
