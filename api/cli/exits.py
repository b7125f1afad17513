"""Exit codes, and errors that end a command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import typer

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)
EXIT_USAGE: Final = 2
EXIT_NOTHING_SELECTED: Final = 5
EXIT_INTERRUPTED: Final = 130


def exit_with_error(message: str, code: int = EXIT_USAGE) -> NoReturn:
    """Print the message on standard error, in one line, and exit."""
    typer.echo(f"spanproof: {message}", err=True)
    sys.exit(code)


def read_choice(option: str, text: str, choices: type[Choice]) -> Choice:
    """Return the member of `choices` that the text of an option names, or exit."""
    try:
        return choices(text)
    except ValueError:
        exit_with_error(f"{option} is one of {', '.join(choices)}, not {text!r}")


def read_or_exit(path: Path, reader: Callable[[Path], T]) -> T:
    """Return what `reader` makes of a file; exit if the file cannot be read."""
    try:
        return reader(path)
    except OSError as error:
        exit_with_error(f"{path}: {error.strerror}")
    except UnicodeDecodeError as error:
        exit_with_error(f"{path}: not UTF-8 text, see byte {error.start}")


def require_file(db: str | None) -> None:
    """Exit unless the file exists. None stands for no file and is accepted."""
    if db is not None and not Path(db).exists():
        exit_with_error(f"{db}: no such file")
