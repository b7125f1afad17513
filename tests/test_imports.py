"""Each folder imports only from those to its left."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spanproof

ROOT = Path(spanproof.__file__).parent
ORDER = ("collector", "query_lang", "assertions", "api")
FILES = sorted(path for folder in ORDER for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The folders of ours that a module imports from."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("spanproof.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_left(path: Path) -> None:
    here = ORDER.index(path.relative_to(ROOT).parts[0])
    allowed = set(ORDER[: here + 1]) | ({"examples"} if ORDER[here] == "api" else set())
    assert imported(path) <= allowed


def test_the_command_line_begins_without_what_is_slow_to_import() -> None:
    heavy = ("duckdb", "fastapi", "grpc", "httpx", "jinja2", "numpy", "pyarrow", "pydantic", "scipy", "watchfiles")
    program = f"import sys, spanproof.api.cli; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_pytest_run_without_proofs_imports_little_of_us() -> None:
    program = "import sys, pytest; before = {*sys.modules}; import spanproof.assertions.pytest_plugin; "
    program += "print(*sorted({name for name in {*sys.modules} - before if not name.startswith('__editable__')}))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["spanproof", "spanproof.assertions", "spanproof.assertions.pytest_plugin"]


def test_the_shop_stands_by_itself() -> None:
    for path in (ROOT / "examples").rglob("*.py"):
        assert imported(path) <= {"examples"}, path


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 20
