"""What commands share: how they read files, show problems and leave."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, TypeVar

import typer
from rich.console import Console

from spanproof.assertions.reports.terminal import render_diagnostics
from spanproof.assertions.run.proof_files import find_proof_files, read_module
from spanproof.query_lang.check.modules import ProofModule

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)
EXIT_USAGE, EXIT_NOTHING_SELECTED = 2, 5


def exit_with_error(message: str, code: int = EXIT_USAGE) -> NoReturn:
    """Say in one line what is wrong and leave."""
    typer.echo(f"spanproof: {message}", err=True)
    sys.exit(code)


def read_choice(option: str, text: str, choices: type[Choice]) -> Choice:
    """Read an option that takes one of a few words."""
    try:
        return choices(text)
    except ValueError:
        exit_with_error(f"{option} is one of {', '.join(choices)}, not {text!r}")


def make_console() -> Console:
    """Return the console that reports go to."""
    return Console(highlight=False, soft_wrap=True)


def print_diagnostics(modules: list[ProofModule]) -> int:
    """Print what is wrong with files; return how many problems there are."""
    for module in modules:
        if module.diagnostics:
            make_console().print(render_diagnostics(module.file.path, module.file.text, module.diagnostics))
    return sum(len(module.diagnostics) for module in modules)


def load_modules(paths: list[Path]) -> list[ProofModule]:
    """Read the proof files that `paths` name."""
    try:
        found = find_proof_files(paths)
    except OSError as error:
        exit_with_error(str(error))
    modules = [read_or_exit(path, read_module) for path in found]
    if not modules:
        exit_with_error(f"no proof file in {', '.join(str(path) for path in paths)}", EXIT_NOTHING_SELECTED)
    return modules


def read_or_exit(path: Path, reader: Callable[[Path], T]) -> T:
    """Read a file with `reader`, or say in one line why not."""
    try:
        return reader(path)
    except OSError as error:
        exit_with_error(f"{path}: {error.strerror}")
    except UnicodeDecodeError as error:
        exit_with_error(f"{path}: not text in UTF-8, see byte {error.start}")
