"""``spanproof migrate``: the tests of other tools as proofs."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spanproof.api.shell import fail, read
from spanproof.api.whole_files import write_whole
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
    from spanproof.query_lang.tracetest.proofs import turn

    if output is None and len(files) > 1:
        fail("several files become several proofs: --output names the folder for them")
    targets = place_proofs(files, output)
    if not force and (there := [path for path in targets if path is not None and path.exists()]):
        fail(f"{there[0]}: it exists; --force replaces it")
    texts = [read(path, lambda path: path.read_text(encoding="utf-8-sig")) for path in files]
    said, turned = Console(stderr=True, highlight=False, soft_wrap=True), 0
    for path, text, target in zip(files, texts, targets, strict=True):
        found = turn(text)
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


def place_proofs(files: list[Path], output: Path | None) -> list[Path | None]:
    """Return where the proof of each file goes: below a folder as the files are below theirs; None is to be printed."""
    if output is None:
        return [None for _ in files]
    if len(files) == 1 and not output.is_dir():
        return [output]
    if output.exists() and not output.is_dir():
        fail(f"{output}: several proofs go to a folder, and this is a file")
    common = Path(os.path.commonpath([path.absolute().parent for path in files]))
    placed = [output / path.absolute().relative_to(common).with_suffix(".proof") for path in files]
    twice = [path for path, count in Counter(placed).items() if count > 1]
    if twice:
        fail(f"two files would become {twice[0]}")
    return list(placed)


def write_proof(path: Path, text: str) -> None:
    """Write a proof, and the folders it stands in."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        fail(f"{path}: {error.strerror}")
