"""A test uses every option of every command.

The tests are parsed, not run. An option counts as used if it is part of a literal command line, or if it occurs
anywhere in a test that starts only one command, or in a helper of such a test.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from spanproof.api.cli.command_tree import CommandParameter, read_commands
from spanproof.api.cli.main import app

TESTS = Path(__file__).parent
STARTERS = (
    "spanproof",
    "start",
    "start_io",
    "Running",
    "invoke",
)  # take a command line as arguments or as a list
COMMANDS = [command for command in read_commands(app).walk() if command.words and not command.commands]
OPTIONS = [
    pytest.param(command.path, option, id=f"{command.path} {option.spellings[0]}")
    for command in COMMANDS
    for option in command.options
    if option.spellings != ("--help",)  # one test covers it for each command
]
Line = tuple[str, frozenset[str]]  # a command, and the options and names in its command line


@dataclass(frozen=True, slots=True)
class Part:
    """A function or constant of a test module."""

    lines: frozenset[Line]
    options: frozenset[str]
    uses: frozenset[str]
    is_test: bool


Parts = dict[str, Part]


def read_strings(node: ast.AST) -> Iterator[str]:
    """Yield the options and names in code."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.startswith("-"):
            yield each.value.partition("=")[0]
        elif isinstance(each, ast.Name):
            yield each.id


def read_line(node: ast.AST) -> Line | None:
    """Return a literal command line: the arguments of a function that starts a command, or a list of its words."""
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        items = node.args if called in STARTERS else []
    elif isinstance(node, ast.List | ast.Tuple):
        items = node.elts
    else:
        return None
    if items and isinstance(items[0], ast.Name) and items[0].id == "COMMAND":
        items = items[1:]
    words = tuple(each.value if isinstance(each, ast.Constant) else None for each in items)
    command = next((each for each in COMMANDS if words[: len(each.words)] == each.words), None)
    if command is None or len(words) == len(command.words):
        return None
    return command.path, frozenset(text for each in items for text in read_strings(each))


def read_part(node: ast.AST, name: str) -> Part:
    strings = frozenset(read_strings(node))
    options = frozenset(each for each in strings if each.startswith("-"))
    lines = frozenset(line for each in ast.walk(node) if (line := read_line(each)))
    is_test = name.startswith("test_")
    arguments = {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    local_names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    fixtures = arguments if is_test or is_fixture(node) else set[str]()
    return Part(lines, options, (strings - options - local_names - arguments) | fixtures, is_test)


def is_fixture(node: ast.AST) -> bool:
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return is_function and any("fixture" in ast.unparse(each) for each in node.decorator_list)


def read_module(path: Path) -> Parts:
    """Return the parts of a module, of the test modules that it imports, and of each `conftest.py` above it."""
    parts: Parts = {}
    for folder in reversed(path.parents[: len(path.relative_to(TESTS).parts)]):
        if (folder / "conftest.py").exists():
            parts |= read_own_parts(folder / "conftest.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spanproof.tests."):
            imported = TESTS.joinpath(*str(node.module).split(".")[2:]).with_suffix(".py")
            parts |= {name: part for name, part in read_own_parts(imported).items() if not part.is_test}
    return parts | read_own_parts(path)


@cache
def read_own_parts(path: Path) -> Parts:
    parts: Parts = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            parts[node.name] = read_part(node, node.name)
        elif isinstance(node, ast.Assign):
            parts |= {target.id: read_part(node.value, "") for target in node.targets if isinstance(target, ast.Name)}
    return parts


def find_reachable(names: frozenset[str], parts: Parts) -> set[str]:
    """Return the names of the parts that `names` refer to, directly or indirectly."""
    reached, todo = set[str](), set(names)
    while todo:
        name = todo.pop()
        if name in parts and name not in reached and not parts[name].is_test:
            reached.add(name)
            todo |= parts[name].uses
    return reached


@cache
def list_used_options() -> frozenset[tuple[str, str]]:
    """Return the pairs of a command and an option that a test uses."""
    used: set[tuple[str, str]] = set()
    for path in sorted(set(TESTS.rglob("test_*.py")) - {Path(__file__)}):
        parts = read_module(path)
        for part in parts.values():
            if not part.is_test:
                continue
            helpers = [parts[name] for name in find_reachable(part.uses, parts)]
            lines = part.lines.union(*(each.lines for each in helpers))
            for command, words in lines:
                further = [parts[name].options for name in find_reachable(words, parts)]
                used |= {(command, option) for option in words.union(*further)}
            if len({command for command, _ in lines}) == 1:
                ((command, *_), *_) = lines
                used |= {(command, option) for option in part.options.union(*(each.options for each in helpers))}
    return frozenset(used)


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_option_is_used_by_a_test(command: str, option: CommandParameter) -> None:
    assert any((command, spelling) in list_used_options() for spelling in option.spellings)


def test_unused_option_is_detected() -> None:
    assert ("run", "--until-decided") not in list_used_options()
    assert ("serve", "--until-decided") not in list_used_options()
