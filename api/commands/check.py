"""``spanproof check``: diagnostics of proof files, without any request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spanproof.api.cli.command_app import make_command_app
from spanproof.api.cli.console import load_modules, make_console, print_diagnostics
from spanproof.api.cli.exits import EXIT_USAGE, require_file

if TYPE_CHECKING:
    from spanproof.query_lang.load.modules import ProofModule

app = make_command_app()


@app.command(
    short_help="Check proofs without sending anything.", epilog="Example: spanproof check checks --db spans.duckdb"
)
def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Proof files or folders of them.")
    ] = None,
    *,
    db: Annotated[
        str | None,
        typer.Option("--db", metavar="FILE", help="A store: warn of services and attributes that it does not contain."),
    ] = None,
) -> None:
    """Check proofs without sending anything: syntax, names, types, units."""
    from spanproof.assertions.explain.text_formatting import format_count

    modules = load_modules(paths or [Path()])
    problems = print_diagnostics(modules)
    proofs = sum(len(module.proofs) for module in modules)
    counts = [format_count(len(modules), "file"), format_count(proofs, "proof"), format_count(problems, "problem")]
    if db is not None:
        counts.append(format_count(print_unknown_names(modules, db), "warning"))
    typer.echo(", ".join(counts))
    sys.exit(EXIT_USAGE if problems else 0)


def print_unknown_names(modules: list[ProofModule], db: str) -> int:
    """Print a warning for each name that the store in `db` does not contain; return how many there are."""
    from spanproof.assertions.reports.terminal import render_diagnostics
    from spanproof.collector.traces.catalog import read_catalog
    from spanproof.query_lang.load.unknown_names import find_unknown_names

    require_file(db)
    catalog = read_catalog(db)
    count = 0
    for module in modules:
        warnings = find_unknown_names(module, catalog)
        count += len(warnings)
        if warnings:
            make_console().print(render_diagnostics(module.file.path, module.file.text, warnings))
    return count
