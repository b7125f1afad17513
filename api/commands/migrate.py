"""``spanproof migrate``: converts the tests of other tools into proofs."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from spanproof.api.cli.atomic_files import write_atomically
from spanproof.api.cli.command_app import make_command_app
from spanproof.api.cli.console import make_console
from spanproof.api.cli.exits import exit_with_error, read_or_exit

app = make_command_app(no_args_is_help=True)


@app.callback()
def migrate() -> None:
    """Convert the tests of another tool into proofs."""


@app.command(epilog="Example: spanproof migrate tracetest tests/*.yaml --output proofs")
def tracetest(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Test definitions in YAML.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The file to write, or a folder for several; the default prints the proof.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Convert Tracetest test definitions into proofs, or name what has no equivalent."""
    from spanproof.assertions.explain.text_formatting import format_count
    from spanproof.assertions.reports.terminal import render_diagnostics
    from spanproof.query_lang.tracetest.proofs import convert_tests

    if output is None and len(files) > 1:
        exit_with_error("several files become several proofs: name a folder with --output")
    targets = plan_output_paths(files, output)
    if not force and (existing := [path for path in targets if path is not None and path.exists()]):
        exit_with_error(f"{existing[0]}: the file exists; --force replaces it")
    texts = [read_or_exit(path, lambda path: path.read_text(encoding="utf-8-sig")) for path in files]
    console, converted_count = make_console(stderr=True), 0
    for path, text, target in zip(files, texts, targets, strict=True):
        converted = convert_tests(text)
        if converted.text is None:
            console.print(render_diagnostics(str(path), text, converted.diagnostics))
        elif target is None:
            typer.echo(converted.text, nl=False)
        else:
            write_proof(target, converted.text)
        converted_count += converted.text is not None
    if output is not None:
        typer.echo(
            f"{format_count(len(files), 'file')}, {converted_count} converted, {len(files) - converted_count} refused"
        )
    sys.exit(0 if converted_count == len(files) else 1)


def plan_output_paths(files: list[Path], output: Path | None) -> list[Path | None]:
    """Return the path of each proof, with the folders of the files kept below `output`; None prints the proof."""
    if output is None:
        return [None for _ in files]
    if len(files) == 1 and not output.is_dir():
        return [output]
    if output.exists() and not output.is_dir():
        exit_with_error(f"{output}: several proofs need a folder, and this is a file")
    common = Path(os.path.commonpath([path.absolute().parent for path in files]))
    placed = [output / path.absolute().relative_to(common).with_suffix(".proof") for path in files]
    twice = [path for path, count in Counter(placed).items() if count > 1]
    if twice:
        exit_with_error(f"two files would be written to {twice[0]}")
    return list(placed)


def write_proof(path: Path, text: str) -> None:
    """Write a proof, and make its folders."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        exit_with_error(f"{path}: {error.strerror}")
