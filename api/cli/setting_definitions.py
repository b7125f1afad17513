"""Definitions of the settings: which options there are, their keys in the file and their variables.

The command line overrides the environment, and the environment overrides the file. A table of the file, or a variable
with the name of a command in it, sets options of that command: ``[run] workers = 4`` or ``SPANPROOF_RUN_WORKERS=4``. An
option that several commands share also has a short name: ``db = "spans.duckdb"`` or ``SPANPROOF_DB=spans.duckdb``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from spanproof.api.cli.command_tree import list_subcommands
from spanproof.collector.user_errors import UserError

FILE_NAME: Final = "spanproof.toml"
PREFIX: Final = "SPANPROOF_"
DEFAULT: Final = "default"
# Kubernetes sets these in each container of a namespace with a Service called `spanproof`.
_SERVICE_LINK: Final = re.compile(r"SPANPROOF_(SERVICE_|PORT(_|$))")


class SettingsError(UserError):
    """A setting is unknown or invalid; the message names its origin and the remedy."""


class Option(Struct, frozen=True):
    """An option of a command that can be set: its key in the file, and its type in Python."""

    command: tuple[str, ...]
    key: str
    parameter: str
    type: type
    is_list: bool
    default: Any
    limits: tuple[float | None, float | None]
    shared_variable: str | None

    @property
    def path(self) -> str:
        """The key path in the file, such as ``run.workers``."""
        return ".".join((*self.command, self.key))

    @property
    def shared_key(self) -> str | None:
        """The key at the top of the file, such as ``db``, if the option has a short name."""
        return None if self.shared_variable is None else _to_key(self.shared_variable.removeprefix(PREFIX))

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set the option, the most specific first."""
        own = PREFIX + "_".join((*self.command, self.key)).upper().replace("-", "_")
        return (own,) if self.shared_variable in (None, own) else (own, str(self.shared_variable))


class Setting(Struct, frozen=True):
    """The value of an option before the command line, and its origin: a variable, the file or the default."""

    option: Option
    value: Any
    origin: str

    @property
    def is_default(self) -> bool:
        """Whether neither the environment nor the file sets the option."""
        return self.origin == DEFAULT


def has_settings() -> bool:
    """Return whether the environment or a file sets anything."""
    return find_settings_file(Path.cwd()) is not None or any(list_variables(os.environ))


def find_settings_file(folder: Path) -> Path | None:
    """Return the nearest ``spanproof.toml``, in this folder or above it."""
    paths = (each / FILE_NAME for each in (folder, *folder.parents))
    return next((path for path in paths if path.is_file()), None)


def list_options(command: Any, words: tuple[str, ...] = ()) -> Iterator[Option]:
    """Yield the options of a Click command and of all commands below it that can be set."""
    for name, subcommand in list_subcommands(command):
        yield from list_options(subcommand, (*words, name))
    for parameter in command.params if words else ():
        if parameter.param_type_name == "option" and parameter.name != "help":
            yield _make_option(parameter, words)


def _make_option(parameter: Any, words: tuple[str, ...]) -> Option:
    spelling = max(parameter.opts, key=len)
    key = spelling.removeprefix("--") if spelling.startswith("--") else _to_key(parameter.name)
    # An option with a numeric default takes numbers; all others take text.
    number = type(parameter.default) if isinstance(parameter.default, int | float) else str
    return Option(
        words,
        key,
        parameter.name,
        bool if parameter.is_flag else number,
        is_list=parameter.multiple,
        default=parameter.default,
        limits=(getattr(parameter.type, "min", None), getattr(parameter.type, "max", None)),
        shared_variable=getattr(parameter, "shared_variable", None),
    )


def list_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that are meant for settings."""
    return [name for name in environment if name.startswith(PREFIX) and not _SERVICE_LINK.match(name)]


def _to_key(name: str) -> str:
    return name.lower().replace("_", "-")
