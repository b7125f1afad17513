"""Files of the repository: GitHub files fit their schemas, the picture is current, links lead to files."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]+)?\)")
SCHEMAS = [
    ("vendor.github-workflows", sorted((ROOT / ".github/workflows").glob("*.yml"))),
    ("vendor.dependabot", [ROOT / ".github/dependabot.yml"]),
    ("vendor.github-issue-config", [ROOT / ".github/ISSUE_TEMPLATE/config.yml"]),
    (
        "vendor.github-issue-forms",
        [ROOT / f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "feature", "wrong_verdict")],
    ),
]


@pytest.mark.parametrize(("schema", "files"), SCHEMAS, ids=[schema for schema, _ in SCHEMAS])
def test_github_files_fit_their_schema(schema: str, files: list[Path]) -> None:
    assert files
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", schema, *files]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_picture_shows_what_is_printed() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/picture/make.py"))["draw"]()
    assert drawn == (ROOT / "docs/failing-proof.svg").read_text(encoding="utf-8"), "run `make picture`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "docs/index.md", "CONTRIBUTING.md"])
def test_main_pages_link_to_the_glossary(page: str) -> None:
    assert "glossary.md" in (ROOT / page).read_text(encoding="utf-8")
