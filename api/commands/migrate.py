"""``spanproof migrate``: the tests of other tools as proofs."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spanproof.api.cli.atomic_files import write_atomically
from spanproof.api.cli.console import exit_with_error, read_or_exit
from spanproof.assertions.reports.terminal import render_diagnostics

migrate = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@migrate.callback()
def of_another_tool() -> None:
    """Turn the tests of another tool into proofs."""


@migrate.command(epilog="Example: spanproof migrate tracetest tests/*.yaml --output proofs")
def tracetest(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Test definitions in YAML.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Where to write; a folder for several. Otherwise a proof is printed."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files if there are any.")] = False,
) -> None:
    """Turn Tracetest's test definitions into proofs, or say by name what has no equivalent."""
    from spanproof.query_lang.tracetest.proofs import convert_tests

    if output is None and len(files) > 1:
        exit_with_error("several files become several proofs: --output names the folder for them")
    targets = plan_output_paths(files, output)
    if not force and (there := [path for path in targets if path is not None and path.exists()]):
        exit_with_error(f"{there[0]}: it exists; --force replaces it")
    texts = [read_or_exit(path, lambda path: path.read_text(encoding="utf-8-sig")) for path in files]
    said, turned = Console(stderr=True, highlight=False, soft_wrap=True), 0
    for path, text, target in zip(files, texts, targets, strict=True):
        found = convert_tests(text)
        if found.text is None:
            said.print(render_diagnostics(str(path), text, found.diagnostics))
        elif target is None:
            typer.echo(found.text, nl=False)
        else:
            write_proof(target, found.text)
        turned += found.text is not None
    if output is not None:
        typer.echo(f"{len(files)} files, {turned} turned, {len(files) - turned} refused")
    sys.exit(0 if turned == len(files) else 1)


def plan_output_paths(files: list[Path], output: Path | None) -> list[Path | None]:
    """Return where the proof of each file goes: below a folder as the files are below theirs; None is to be printed."""
    if output is None:
        return [None for _ in files]
    if len(files) == 1 and not output.is_dir():
        return [output]
    if output.exists() and not output.is_dir():
        exit_with_error(f"{output}: several proofs go to a folder, and this is a file")
    common = Path(os.path.commonpath([path.absolute().parent for path in files]))
    placed = [output / path.absolute().relative_to(common).with_suffix(".proof") for path in files]
    twice = [path for path, count in Counter(placed).items() if count > 1]
    if twice:
        exit_with_error(f"two files would become {twice[0]}")
    return list(placed)


def write_proof(path: Path, text: str) -> None:
    """Write a proof, and the folders it stands in."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        exit_with_error(f"{path}: {error.strerror}")
