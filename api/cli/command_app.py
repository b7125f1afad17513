"""What commands share: the Typer application, the option for the store, groups of options, the import of numpy."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from importlib import import_module
from inspect import Parameter
from typing import Annotated, Any, Final, TypeAlias, get_type_hints

import typer

CommandFunction: TypeAlias = Callable[..., None]
Database: TypeAlias = Annotated[
    str, typer.Option("--db", metavar="FILE", envvar="SPANPROOF_DB", help="DuckDB file of the spans.")
]

_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"


def import_numpy() -> None:
    """Import numpy before another module does, with a single thread for linear algebra, which is not used here.

    OpenBLAS would start a thread per processor, each of which first spins for 0.03 s. The variable is unset again,
    because the commands that a proof runs inherit the environment.
    """
    if _BLAS_THREADS in os.environ:
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        import_module("numpy")
    finally:
        del os.environ[_BLAS_THREADS]


def make_command_app() -> typer.Typer:
    """Return an application for a single command, without markup and completion options of its own."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def add_option_group(name: str, group: type) -> Callable[[CommandFunction], CommandFunction]:
    """Add the fields of the dataclass `group` to a command as options; the command receives them as argument `name`."""
    hints = get_type_hints(group, include_extras=True)
    options = fields(group)

    def decorate(command: CommandFunction) -> CommandFunction:
        @wraps(command)
        def run(**arguments: Any) -> None:
            command(**{name: group(**{field.name: arguments.pop(field.name) for field in options})}, **arguments)

        signature = inspect.signature(command, eval_str=True)
        parameters = [each for each in signature.parameters.values() if each.name != name] + [
            Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
            for field in options
        ]
        # Typer reads both.
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # set by inspect
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate
