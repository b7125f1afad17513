"""``spanproof case``: case files, each a text of traces, claims and expected verdicts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spanproof.api.cli.command_app import make_command_app
from spanproof.api.cli.exits import exit_with_error, read_or_exit

app = make_command_app()


@app.command(
    short_help="Run case files: traces, claims and expected verdicts.",
    epilog="Example: spanproof case tests/cases/*.case",
)
def case(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Case files.")],
) -> None:
    """Run case files: traces, claims and the verdicts that they must get, in one text."""
    from spanproof.assertions.cases.case_runner import group_differences, run_cases
    from spanproof.assertions.cases.scenario import CaseError
    from spanproof.assertions.explain.text_formatting import format_count

    claims, differences = 0, 0
    for path in files:
        text = read_or_exit(path, lambda path: path.read_text(encoding="utf-8-sig"))
        try:
            results = list(run_cases(text))
        except CaseError as error:
            exit_with_error(f"{path}: {error}")
        claims += len(results)
        for each in group_differences(results):
            differences += 1
            where = "in every variation" if each.all_variations else f"only {'; '.join(each.variations)}"
            typer.echo(f"{path}:{each.assertion.line}: {each.assertion.claim}\n    {each.difference}\n    ({where})")
    counts = (
        format_count(len(files), "file"),
        format_count(claims, "verdict"),
        format_count(differences, "difference"),
    )
    typer.echo(", ".join(counts))
    sys.exit(1 if differences else 0)
