"""The command line as data: its commands, their options and arguments, and the values of these."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import typer
from msgspec import Struct

_FILES: Final = re.compile(r"\W*(?:FILE|FOLDER|PATH|PROOF)\W*")
_CHOICES: Final = re.compile(r"[a-z-]+(?:\|[a-z-]+)+")


class CommandParameter(Struct, frozen=True):
    """An option with its ``spellings``, or an argument, which has none.

    ``choices`` are the allowed words, empty if any value is allowed. ``takes_path`` is true for a file or folder.
    """

    spellings: tuple[str, ...]
    metavar: str | None
    help: str
    takes_value: bool
    choices: tuple[str, ...]
    takes_path: bool
    is_repeatable: bool


class CommandNode(Struct, frozen=True):
    """A command, identified by its words on the command line; a group has subcommands in ``commands``."""

    words: tuple[str, ...]
    help: str
    options: tuple[CommandParameter, ...]
    argument: CommandParameter | None
    commands: tuple[CommandNode, ...]

    @property
    def path(self) -> str:
        """The words, separated by spaces; empty for the root."""
        return " ".join(self.words)

    def walk(self) -> Iterator[CommandNode]:
        """Yield the command and all its subcommands, at any depth."""
        yield self
        for command in self.commands:
            yield from command.walk()


def read_commands(root: Any) -> CommandNode:
    """Return the tree of commands of a Typer application or of its Click command."""
    return _read_command(typer.main.get_command(root) if isinstance(root, typer.Typer) else root, ())


def _read_command(command: Any, words: tuple[str, ...]) -> CommandNode:
    # untyped, because Typer does not export Click's classes
    parameters = [(_read_parameter(each), each.param_type_name) for each in command.params]
    options = [each for each, kind in parameters if kind == "option"]
    arguments = [each for each, kind in parameters if kind == "argument"]
    return CommandNode(
        words,
        _first_sentence(command.help or ""),
        (*options, CommandParameter(("--help",), None, "Show this help and exit.", False, (), False, False)),
        arguments[0] if arguments else None,
        tuple(_read_command(subcommand, (*words, name)) for name, subcommand in list_subcommands(command)),
    )


def list_subcommands(command: Any) -> list[tuple[str, Any]]:
    """Return the commands of a group by name; a single command has none."""
    if not hasattr(command, "list_commands"):
        return []
    context = command.make_context(command.name, [], resilient_parsing=True)
    return [(name, command.get_command(context, name)) for name in command.list_commands(context)]


def _read_parameter(parameter: Any) -> CommandParameter:
    metavar = parameter.metavar or ""
    return CommandParameter(
        tuple(each for each in parameter.opts if each.startswith("-")),
        parameter.metavar,
        _first_sentence(parameter.help or ""),
        takes_value=not getattr(parameter, "is_flag", False),
        choices=tuple(metavar.split("|")) if _CHOICES.fullmatch(metavar) else (),
        takes_path=bool(_FILES.fullmatch(metavar)),
        is_repeatable=bool(getattr(parameter, "multiple", False)),
    )


def _first_sentence(text: str) -> str:
    return re.split(r"[.;:](?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
