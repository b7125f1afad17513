"""The commands that ask a server, or a file in its place."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from spanproof.api.access import Access
from spanproof.api.option_groups import takes
from spanproof.api.shell import USAGE, console, fail, read, show_problems
from spanproof.assertions.reports.terminal import render_diagnostics, render_trace
from spanproof.assertions.settings import read_values

File = Annotated[str | None, typer.Option("--db", metavar="FILE", help="Read this file, not a server.")]


@takes("access", Access)
def trace(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="The trace's id, 32 hexadecimal digits.")],
    *,
    db: File = None,
    access: Access,
) -> None:
    """Draw a stored trace as a waterfall."""
    if not re.fullmatch("[0-9a-fA-F]{32}", trace_id):
        fail(f"{trace_id!r} is not a trace id: 32 hexadecimal digits")
    from spanproof.api.client import fetch_trace, read_trace

    check_file(db)
    view = fetch_trace(access, trace_id.lower()) if db is None else read_trace(db, trace_id.lower())
    if view is None:
        fail(f"no span of trace {trace_id} is stored", 1)
    console().print(render_trace(view), end="")


@takes("access", Access)
def query(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="A number, of which groups, over which window.")],
    *,
    file_format: Annotated[
        str, typer.Option("--format", metavar="table|json|csv|arrow", help="How to print the answer.")
    ] = "table",
    db: File = None,
    access: Access,
) -> None:
    """Ask one number of stored traces, by the values of a field and by steps of time."""
    from spanproof.api.answers import FORMATS
    from spanproof.api.client import fetch_answer, read_answer
    from spanproof.query_lang.questions import read_question

    if file_format not in FORMATS:
        fail(f"--format is one of {', '.join(FORMATS)}, not {file_format!r}")
    found = read_question(question)
    if found.question is None:
        console().print(render_diagnostics("QUESTION", question, found.diagnostics))
        sys.exit(USAGE)
    check_file(db)
    document = fetch_answer(access, question) if db is None else read_answer(db, found.question)
    sys.stdout.buffer.write(FORMATS[file_format].render(document))
    if document.warning and file_format != "table":  # which says so itself
        typer.echo(f"spanproof: {document.warning}", err=True)


@takes("access", Access)
def gate(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PROOF]", help="A proof file; it is sent to the server as it stands.")
    ] = None,
    *,
    stored: Annotated[
        str | None, typer.Option("--stored", metavar="NAME", help="A proof that the server keeps, in place of a file.")
    ] = None,
    var: Annotated[
        list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="Set a `let` from outside.")
    ] = None,
    look_for: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="For how long to look; once unless told.")
    ] = "0s",
    every: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait between looks.")] = "30s",
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="End at the first pass, too, not only at the first failure.")
    ] = False,
    access: Access,
) -> None:
    """Ask a server whether proofs hold, again and again while the traces cannot tell."""
    from spanproof.api.gating import look_until_decided
    from spanproof.query_lang.literals import read_duration_ns
    from spanproof.query_lang.sent import read_sent

    limits = {}
    for option, told in (("--for", look_for), ("--every", every)):
        try:
            limits[option] = read_duration_ns(told)
        except ValueError as error:
            fail(f"{option}: {error}")
    try:
        variables, _ = read_values(var or (), ())
    except ValueError as error:
        fail(str(error))
    if limits["--for"] < 0 or limits["--every"] <= 0:
        fail("--for and --every are times to wait")
    if (path is None) == (stored is None):
        fail("give either PROOF, a file, or --stored, the name of a proof that the server keeps")
    body: dict[str, object] = {"variables": variables}
    if path is None:
        body["stored"] = stored
    else:
        text = read(path, lambda path: path.read_text(encoding="utf-8-sig"))
        if show_problems([read_sent(text, path.as_posix(), may_send=True)]):
            sys.exit(USAGE)
        body |= {"proof": text, "name": path.as_posix()}
    outcome = look_until_decided(
        access, body, limits["--for"], limits["--every"], console(), until_decided=until_decided
    )
    sys.exit(outcome)


def check_file(db: str | None) -> None:
    """Leave unless the file is there."""
    if db is not None and not Path(db).exists():
        fail(f"{db}: no such file")
