"""The command line as data: its commands, their options and arguments, and what these take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import typer

_FILES: Final = re.compile(r"\W*(?:FILE|FOLDER|PATH|PROOF)\W*")
_CHOICES: Final = re.compile(r"[a-z-]+(?:\|[a-z-]+)+")


@dataclass(frozen=True, slots=True)
class CommandParameter:
    """An option, with its ``spellings``, or an argument, which has none.

    ``choices`` are the words it takes, if only some; ``files`` says that it takes a file or folder.
    """

    spellings: tuple[str, ...]
    metavar: str | None
    help: str
    takes_value: bool
    choices: tuple[str, ...]
    takes_path: bool
    is_repeatable: bool


@dataclass(frozen=True, slots=True)
class CommandNode:
    """A command, by the words that lead to it; a group of commands has ``commands``."""

    words: tuple[str, ...]
    help: str
    options: tuple[CommandParameter, ...]
    argument: CommandParameter | None
    commands: tuple[CommandNode, ...]

    @property
    def path(self) -> str:
        """The words, as they are written; nothing for the whole."""
        return " ".join(self.words)

    def walk(self) -> Iterator[CommandNode]:
        """Yield the command and all below it."""
        yield self
        for command in self.commands:
            yield from command.walk()


def read_commands(root: Any) -> CommandNode:
    """Return the tree of commands of a Typer application or of its Click command."""
    return _read_command(typer.main.get_command(root) if isinstance(root, typer.Typer) else root, ())


def _read_command(found: Any, words: tuple[str, ...]) -> CommandNode:
    # of any type: typer keeps click's classes to itself
    parameters = [(_read_parameter(each), each.param_type_name) for each in found.params]
    options = [each for each, kind in parameters if kind == "option"]
    arguments = [each for each, kind in parameters if kind == "argument"]
    return CommandNode(
        words,
        _first_sentence(found.help or ""),
        (*options, CommandParameter(("--help",), None, "Show what there is.", False, (), False, False)),
        arguments[0] if arguments else None,
        tuple(_read_command(command, (*words, name)) for name, command in list_subcommands(found)),
    )


def list_subcommands(command: Any) -> list[tuple[str, Any]]:
    """Return the commands of a group by name; a single command has none."""
    if not hasattr(command, "list_commands"):
        return []
    context = command.make_context(command.name, [], resilient_parsing=True)
    return [(name, command.get_command(context, name)) for name in command.list_commands(context)]


def _read_parameter(found: Any) -> CommandParameter:
    metavar = found.metavar or ""
    return CommandParameter(
        tuple(each for each in found.opts if each.startswith("-")),
        found.metavar,
        _first_sentence(found.help or ""),
        takes_value=not getattr(found, "is_flag", False),
        choices=tuple(metavar.split("|")) if _CHOICES.fullmatch(metavar) else (),
        takes_path=bool(_FILES.fullmatch(metavar)),
        is_repeatable=bool(getattr(found, "multiple", False)),
    )


def _first_sentence(text: str) -> str:
    return re.split(r"[.;:](?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
