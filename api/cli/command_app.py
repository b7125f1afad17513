"""What commands share: the Typer application, the option for the store, groups of options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer
from msgspec.structs import fields

CommandFunction: TypeAlias = Callable[..., None]
Database: TypeAlias = Annotated[
    str, typer.Option("--db", metavar="FILE", envvar="SPANPROOF_DB", help="DuckDB file of the spans.")
]


def make_command_app(*, no_args_is_help: bool = False) -> typer.Typer:
    """Return an application for a command or a group of them, without markup and completion options of its own."""
    return typer.Typer(
        no_args_is_help=no_args_is_help, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )


def add_option_group(name: str, group: type) -> Callable[[CommandFunction], CommandFunction]:
    """Add the fields of the Struct `group` to a command as options; the command receives them as argument `name`."""
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
