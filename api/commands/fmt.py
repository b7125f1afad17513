"""``spanproof fmt``: proof files in their canonical layout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spanproof.api.cli.command_app import make_command_app
from spanproof.api.cli.console import load_modules, print_diagnostics
from spanproof.api.cli.exits import EXIT_USAGE

app = make_command_app()


@app.command(name="fmt", epilog="Example: spanproof fmt --check checks")
def format_files(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Proof files or folders of them.")
    ] = None,
    *,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with code 1 if a file would change.")
    ] = False,
) -> None:
    """Format proof files; there is one layout."""
    from spanproof.assertions.explain.text_formatting import format_count
    from spanproof.query_lang.syntax.formatter import format_file

    modules = load_modules(paths or [Path()])
    if print_diagnostics([module for module in modules if module.file.diagnostics]):
        sys.exit(EXIT_USAGE)
    changed = [module.file for module in modules if format_file(module.file) != module.file.text]
    for file in changed:
        if not check_only:
            Path(file.path).write_text(format_file(file), encoding="utf-8", newline="\n")
        typer.echo(f"{'would format' if check_only else 'formatted'} {file.path}")
    typer.echo(f"{format_count(len(modules), 'file')}, {len(changed)} {'to change' if check_only else 'changed'}")
    sys.exit(1 if check_only and changed else 0)
