"""The command line: one table of commands, each imported when it is used."""

from __future__ import annotations

import gc
import os
import sys
import threading
from importlib import import_module
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from spanproof import __version__
from spanproof.api.cli.exits import EXIT_INTERRUPTED, exit_with_error
from spanproof.collector.user_errors import UserError

# The commands in the order of `--help`. They are imported when used: `spanproof check` does not wait for DuckDB.
COMMANDS: Final = {
    "init": "spanproof.api.commands.init:app",
    "run": "spanproof.api.commands.run:app",
    "check": "spanproof.api.commands.check:app",
    "fmt": "spanproof.api.commands.fmt:app",
    "serve": "spanproof.api.commands.serve:app",
    "gate": "spanproof.api.commands.gate:app",
    "query": "spanproof.api.commands.query:query_app",
    "trace": "spanproof.api.commands.query:trace_app",
    "import": "spanproof.api.commands.import_export:import_app",
    "export": "spanproof.api.commands.import_export:export_app",
    "case": "spanproof.api.commands.case:app",
    "migrate": "spanproof.api.commands.migrate:app",
    "config": "spanproof.api.commands.config:app",
    "completion": "spanproof.api.commands.completion:app",
    "lsp": "spanproof.api.commands.lsp:app",
    "demo": "spanproof.api.commands.demo:app",
}


class LazyGroup(TyperGroup):
    """A group of commands that imports the module of a command when the command is needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in the order of the help page."""
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments begin with; suggest one if there is none of that name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from spanproof.query_lang.syntax.diagnostics import suggest_names

            hint = suggest_names(args[0], COMMANDS)
            ctx.fail(f"no such command `{args[0]}`" + (f"; {hint}" if hint else ""))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of this name, or None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = typer.main.get_command(getattr(import_module(module), name))
        command.name = cmd_name
        for parameter in command.params:
            # The settings read the variable, not Click, which would prefer it to a more specific one.
            parameter.shared_variable, parameter.envvar = parameter.envvar, None  # type: ignore[attr-defined]  # an attribute of ours
        return command


# Imports allocate some hundred thousand objects. With the default threshold of 700, these are scanned many times.
# A command that receives spans lowers the threshold when it has started.
_GC_THRESHOLD: Final = 200_000

app = typer.Typer(
    cls=LazyGroup,
    help="Judges the traces that services emit: which calls a request led to, how fast, with which retries.",
    epilog="Each option can also be set in spanproof.toml or as SPANPROOF_…; `spanproof config` prints the settings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> NoReturn:
    """Run the command line and exit. An error that a user can correct is printed in one line."""
    gc.set_threshold(_GC_THRESHOLD)
    try:
        app()
    except SystemExit as end:
        exit_quickly(end.code if isinstance(end.code, int) else int(end.code is not None))
    except UserError as error:
        exit_with_error(str(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # DuckDB's error after Ctrl-C
            raise
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


def exit_quickly(code: int) -> NoReturn:
    """Exit without destroying the imported modules, which takes longer than most commands.

    The command has closed its resources by then. If a non-daemon thread is still running, or the output cannot be
    flushed, exit in the usual way.
    """
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@app.callback(invoke_without_command=True)
def spanproof(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Judge the traces that services emit: which calls a request led to, how fast, with which retries."""
    if version:
        typer.echo(f"spanproof {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is not None:
        from spanproof.api.cli.setting_definitions import has_settings

        if has_settings():
            from spanproof.api.cli.settings import apply_settings

            apply_settings(context)
