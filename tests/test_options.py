"""Every option of every command is given on a command line by some test.

The tests are read, not run. An option counts where it stands on a command line that is written out, or anywhere in a
test that starts one command alone, and in what such a test uses.
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
)  # take a command line as their arguments, or as a list
COMMANDS = [command for command in read_commands(app).walk() if command.words and not command.commands]
OPTIONS = [
    pytest.param(command.path, option, id=f"{command.path} {option.spellings[0]}")
    for command in COMMANDS
    for option in command.options
    if option.spellings != ("--help",)  # asked of each command in one test
]
Line = tuple[str, frozenset[str]]  # a command, and the options and names beside it


@dataclass(frozen=True, slots=True)
class Part:
    """A function or constant of a test module."""

    lines: frozenset[Line]
    options: frozenset[str]
    uses: frozenset[str]
    is_test: bool


Parts = dict[str, Part]


def read_strings(node: ast.AST) -> Iterator[str]:
    """Yield the options and names in a piece of code."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.startswith("-"):
            yield each.value.partition("=")[0]
        elif isinstance(each, ast.Name):
            yield each.id


def read_line(node: ast.AST) -> Line | None:
    """Read a command line that is written out: as arguments of what starts one, or as a list of its words."""
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
    return command.path, frozenset(found for each in items for found in read_strings(each))


def read_part(node: ast.AST, name: str) -> Part:
    found = frozenset(read_strings(node))
    options = frozenset(each for each in found if each.startswith("-"))
    lines = frozenset(line for each in ast.walk(node) if (line := read_line(each)))
    is_test = name.startswith("test_")
    arguments = {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    own = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    fixtures = arguments if is_test or is_fixture(node) else set[str]()
    return Part(lines, options, (found - options - own - arguments) | fixtures, is_test)


def is_fixture(node: ast.AST) -> bool:
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return is_function and any("fixture" in ast.unparse(each) for each in node.decorator_list)


def read_module(path: Path) -> Parts:
    """Read the parts of a module, and of those that it sees: of what it imports, and of `conftest.py` above it."""
    parts: Parts = {}
    for folder in reversed(path.parents[: len(path.relative_to(TESTS).parts)]):
        if (folder / "conftest.py").exists():
            parts |= read_own(folder / "conftest.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spanproof.tests."):
            there = TESTS.joinpath(*str(node.module).split(".")[2:]).with_suffix(".py")
            parts |= {name: part for name, part in read_own(there).items() if not part.is_test}
    return parts | read_own(path)


@cache
def read_own(path: Path) -> Parts:
    parts: Parts = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            parts[node.name] = read_part(node, node.name)
        elif isinstance(node, ast.Assign):
            parts |= {target.id: read_part(node.value, "") for target in node.targets if isinstance(target, ast.Name)}
    return parts


def reach(names: frozenset[str], parts: Parts) -> set[str]:
    """Return the parts that some names lead to."""
    reached, todo = set[str](), set(names)
    while todo:
        name = todo.pop()
        if name in parts and name not in reached and not parts[name].is_test:
            reached.add(name)
            todo |= parts[name].uses
    return reached


@cache
def exercised() -> frozenset[tuple[str, str]]:
    """Return each command with each option that a test gives to it."""
    found: set[tuple[str, str]] = set()
    for path in sorted(set(TESTS.rglob("test_*.py")) - {Path(__file__)}):
        parts = read_module(path)
        for part in parts.values():
            if not part.is_test:
                continue
            helpers = [parts[name] for name in reach(part.uses, parts)]
            lines = part.lines.union(*(each.lines for each in helpers))
            for command, beside in lines:
                further = [parts[name].options for name in reach(beside, parts)]
                found |= {(command, option) for option in beside.union(*further)}
            if len({command for command, _ in lines}) == 1:
                ((command, *_), *_) = lines
                found |= {(command, option) for option in part.options.union(*(each.options for each in helpers))}
    return frozenset(found)


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_some_test_gives_the_option(command: str, option: CommandParameter) -> None:
    assert any((command, spelling) in exercised() for spelling in option.spellings)


def test_what_no_test_gives_is_missed() -> None:
    assert ("run", "--until-decided") not in exercised()
    assert ("serve", "--until-decided") not in exercised()
