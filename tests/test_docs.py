"""Every proof, claim, query and case of the documentation: it is valid, and cases give their verdicts."""

import re
from pathlib import Path

import pytest

from spanproof.assertions.cases.case_runner import run_cases
from spanproof.query_lang.check.checker import check_claim, check_file
from spanproof.query_lang.compile.queries import read_query
from spanproof.query_lang.syntax.formatter import format_file
from spanproof.query_lang.syntax.parser import parse_claim, parse_file

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(proof|claim|case|question)\n(.*?)^```$", re.M | re.S)
EXAMPLES = [
    pytest.param(block[1], block[2], id=f"{page.name}:{text[: block.start()].count(chr(10)) + 1}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for text in [page.read_text(encoding="utf-8")]
    for block in BLOCK.finditer(text)
]


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_documented_example_works(kind: str, text: str) -> None:
    if kind == "case":
        assert [result.difference for result in run_cases(text) if result.difference] == []
    elif kind == "claim":
        assert check_claim(parse_claim(text.rstrip("\n"))) == ()
    elif kind == "question":
        assert read_query(text).diagnostics == ()
    else:
        file = parse_file(text, "example.proof")
        assert check_file(file) == ()
        assert format_file(file) == text


PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: str(page.name))
def test_documented_python_compiles(page: Path) -> None:
    for text in PYTHON.findall(page.read_text(encoding="utf-8")):
        compile(text, page, "exec")


def test_documentation_has_many_examples() -> None:
    assert len(EXAMPLES) >= 20
