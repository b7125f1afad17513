"""``spanproof config``: the settings in force, and where each value comes from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from spanproof.api.cli.command_app import make_command_app
from spanproof.api.cli.exits import exit_with_error
from spanproof.api.cli.setting_definitions import FILE_NAME, Setting, find_settings_file

MASKED_OPTIONS: Final = ("secret",)
MASK: Final = "••••"

app = make_command_app()


@app.command(short_help="Print the settings in force, each with its origin.", epilog="Example: spanproof config run")
def config(
    context: typer.Context,
    command: Annotated[
        str | None, typer.Argument(metavar="[COMMAND]", help="Only the settings of this command.")
    ] = None,
) -> None:
    """Print the settings in force as TOML, each with its origin: a variable, the file or the default."""
    from spanproof.api.cli.settings import read_settings

    path = find_settings_file(Path.cwd())
    settings = read_settings(context.find_root().command, path, os.environ)
    commands = {setting.option.command[0] for setting in settings}
    if command is not None and command not in commands:
        exit_with_error(f"{command!r} is not a command with settings; there are {', '.join(sorted(commands))}")
    typer.echo(f"# {path}" if path else f"# no {FILE_NAME} in this folder or above it")
    for line in render_settings([each for each in settings if command in (None, each.option.command[0])]):
        typer.echo(line)


def render_settings(settings: list[Setting]) -> Iterator[str]:
    """Yield the lines of a TOML document with a table for each command and the origins as comments."""
    for words, group in groupby(settings, key=lambda setting: setting.option.command):
        yield ""
        yield f"[{'.'.join(words)}]"
        for setting in group:
            masked = setting.option.key in MASKED_OPTIONS and setting.value
            text = f"{setting.option.key} = {_render_value([MASK] if masked else setting.value)}"
            prefix = "# " if setting.value is None else ""  # TOML has no null
            yield f"{prefix}{text:<40} # {setting.origin}"


def _render_value(value: Any) -> str:
    if value is None:
        return "(not set)"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_render_value(each) for each in value)}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)  # a basic string of TOML is one of JSON
