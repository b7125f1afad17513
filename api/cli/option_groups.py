"""Options that several commands take, as the fields of one class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from inspect import Parameter
from typing import Any, TypeAlias, get_type_hints

CommandFunction: TypeAlias = Callable[..., None]


def add_option_group(name: str, group: type) -> Callable[[CommandFunction], CommandFunction]:
    """Give a command the fields of `group`, a dataclass, as options of its own; it gets them as its argument `name`."""
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
        # typer reads both
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # as inspect has it
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate
