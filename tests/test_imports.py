"""Imports point one way: between the four folders, and between the sub-packages of each."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import spanproof

ROOT = Path(spanproof.__file__).parent

# The order in which data passes through the packages. A module imports only from its own package and those above it.
ORDER = (
    "collector",  # user errors, and files with one entry per line
    "collector/otlp",
    "collector/storage",
    "collector/topology",
    "collector/calls",
    "collector/traces",
    "collector/formats",
    "collector/receive",
    "query_lang/syntax",
    "query_lang/check",
    "query_lang/load",
    "query_lang/sql",
    "query_lang/compile",
    "query_lang/editor",
    "query_lang/tracetest",
    "query_lang",
    "assertions",
    "assertions/triggers",
    "assertions/findings",
    "assertions/explain",
    "assertions/judge",
    "assertions/run",
    "assertions/reports",
    "assertions/cases",
    "assertions/pytest_plugin",
    "api",  # the container for Testcontainers, which imports no other module of spanproof
    "api/http",
    "api/tempo",
    "api/server",
    "api/cli",
    "api/commands",
)
MOST_MODULES = 14
MOST_LINES = 400
FOLDERS = ("collector", "query_lang", "assertions", "api")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
EXAMPLES = "examples/shop"  # started by `spanproof demo`


def find_package(module: str) -> str:
    """Return the package of a module, such as `collector/otlp` for `spanproof.collector.otlp.decoder`."""
    parts = module.split(".")[1:]
    package = "/".join(parts[:2])
    return package if package in (*ORDER, EXAMPLES) else parts[0]


def read_imports(path: Path) -> set[str]:
    """Return the modules of spanproof that a file imports, also for type checking only."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("spanproof.") and name != "spanproof.__version__"}


def find_backward_imports(package: str, imports: set[str]) -> set[str]:
    """Return the imports that a module of `package` must not have."""
    allowed = {*ORDER[: ORDER.index(package) + 1], *({EXAMPLES} if package == "api/commands" else ())}
    return {name for name in imports if find_package(name) not in allowed}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_points_backward(path: Path) -> None:
    package = find_package(".".join(("spanproof", *path.relative_to(ROOT).with_suffix("").parts)))
    assert find_backward_imports(package, read_imports(path)) == set()


def test_backward_import_is_found() -> None:
    backward = {"spanproof.collector.calls.derivation.derive_calls", "spanproof.query_lang.syntax.nodes"}
    assert find_backward_imports("collector/storage", {*backward, "spanproof.collector.otlp.decoder"}) == backward


def test_imports_have_no_cycles() -> None:
    modules = {".".join(("spanproof", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
    graph = {
        module: {
            name
            for imported in read_imports(path)
            for name in (imported, imported.rpartition(".")[0])
            if name in modules
        }
        for module, path in modules.items()
    }
    TopologicalSorter({module: names - {module} for module, names in graph.items()}).prepare()  # raises CycleError


@pytest.mark.parametrize("package", ORDER)
def test_package_is_small_and_described(package: str) -> None:
    modules = [path for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES
    assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")))


def test_every_folder_is_in_the_order() -> None:
    assert {path.parent.relative_to(ROOT).as_posix() for path in FILES} == {*ORDER, *FOLDERS}


def test_test_folders_mirror_packages() -> None:
    tests = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    mirrored = {folder for folder in tests if folder.split("/")[0] in FOLDERS}
    assert mirrored <= {*ORDER, *FOLDERS}


def test_no_module_is_long() -> None:
    long = {str(path): count for path in ROOT.glob("*/**/*.py") if (count := count_lines(path)) > MOST_LINES}
    assert long == {}


def count_lines(path: Path) -> int:
    """Return the number of lines of a file, or 0 for a file of a virtual environment."""
    is_source = not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    return len(path.read_text(encoding="utf-8").splitlines()) if is_source else 0


def test_command_line_starts_without_slow_imports() -> None:
    slow = ("duckdb", "fastapi", "grpc", "httpx", "jinja2", "lark", "numpy", "pyarrow", "pydantic", "rich", "scipy")
    program = f"import sys, spanproof.api.cli.main; print([name for name in {slow} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_pytest_plugin_imports_little() -> None:
    program = "import sys, pytest; before = {*sys.modules}; import spanproof.assertions.pytest_plugin; "
    program += "print(*sorted({name for name in {*sys.modules} - before if not name.startswith('__editable__')}))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["spanproof", "spanproof.assertions", "spanproof.assertions.pytest_plugin"]


def test_shop_imports_no_package() -> None:
    for path in (ROOT / "examples").rglob("*.py"):
        assert {find_package(name) for name in read_imports(path)} <= {EXAMPLES, "examples"}, path
