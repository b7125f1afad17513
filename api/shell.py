"""What commands share: how they read files, show problems and leave."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, TypeVar

import typer
from rich.console import Console

from spanproof.assertions.proof_files import find_files, read_module
from spanproof.assertions.reports.terminal import render_diagnostics
from spanproof.query_lang.modules import Module

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)
USAGE, NOTHING_SELECTED = 2, 5


def fail(message: str, code: int = USAGE) -> NoReturn:
    """Say in one line what is wrong and leave."""
    typer.echo(f"spanproof: {message}", err=True)
    sys.exit(code)


def read_choice(option: str, text: str, choices: type[Choice]) -> Choice:
    """Read an option that takes one of a few words."""
    try:
        return choices(text)
    except ValueError:
        fail(f"{option} is one of {', '.join(choices)}, not {text!r}")


def console() -> Console:
    """Return the console that reports go to."""
    return Console(highlight=False, soft_wrap=True)


def show_problems(modules: list[Module]) -> int:
    """Print what is wrong with files; return how many problems there are."""
    for module in modules:
        if module.diagnostics:
            console().print(render_diagnostics(module.file.path, module.file.text, module.diagnostics))
    return sum(len(module.diagnostics) for module in modules)


def load(paths: list[Path]) -> list[Module]:
    """Read the proof files that `paths` name."""
    try:
        found = find_files(paths)
    except OSError as error:
        fail(str(error))
    modules = [read(path, read_module) for path in found]
    if not modules:
        fail(f"no proof file in {', '.join(str(path) for path in paths)}", NOTHING_SELECTED)
    return modules


def read(path: Path, reader: Callable[[Path], T]) -> T:
    """Read a file with `reader`, or say in one line why not."""
    try:
        return reader(path)
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    except UnicodeDecodeError as error:
        fail(f"{path}: not text in UTF-8, see byte {error.start}")
