"""docs/otlp.md: every row names a test, and every named test exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "otlp.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| the server"))]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_row_names_a_test(row: str) -> None:
    assert NAMED.search(row.split("|")[3])


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(PAGE))))
def test_named_test_exists(file: str, name: str) -> None:
    path = ROOT / (file if file.startswith("tests/") else f"tests/collector/{file}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_table_covers_all_requirement_levels() -> None:
    levels = [row.split("|")[2].strip() for row in ROWS]
    assert levels.count("MUST") >= 20
    assert levels.count("SHOULD") >= 13
