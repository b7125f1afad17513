"""The commands that ask a server, or a file in its place."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from spanproof.api.cli.console import EXIT_USAGE, exit_with_error, make_console, print_diagnostics, read_or_exit
from spanproof.api.cli.option_groups import add_option_group
from spanproof.api.cli.server_options import ServerAccess
from spanproof.assertions.reports.terminal import render_diagnostics, render_trace
from spanproof.assertions.run.settings import read_variables

DatabaseFile = Annotated[str | None, typer.Option("--db", metavar="FILE", help="Read this file, not a server.")]


@add_option_group("access", ServerAccess)
def trace(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="The trace's id, 32 hexadecimal digits.")],
    *,
    db: DatabaseFile = None,
    access: ServerAccess,
) -> None:
    """Draw a stored trace as a waterfall."""
    if not re.fullmatch("[0-9a-fA-F]{32}", trace_id):
        exit_with_error(f"{trace_id!r} is not a trace id: 32 hexadecimal digits")
    from spanproof.api.cli.client import fetch_trace, read_trace

    require_file(db)
    view = fetch_trace(access, trace_id.lower()) if db is None else read_trace(db, trace_id.lower())
    if view is None:
        exit_with_error(f"no span of trace {trace_id} is stored", 1)
    make_console().print(render_trace(view), end="")


@add_option_group("access", ServerAccess)
def query(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="A number, of which groups, over which window.")],
    *,
    file_format: Annotated[
        str, typer.Option("--format", metavar="table|json|csv|arrow", help="How to print the answer.")
    ] = "table",
    db: DatabaseFile = None,
    access: ServerAccess,
) -> None:
    """Ask one number of stored traces, by the values of a field and by steps of time."""
    from spanproof.api.cli.client import fetch_answer, read_answer
    from spanproof.api.http.query_output import ANSWER_FORMATS
    from spanproof.query_lang.compile.queries import read_query

    if file_format not in ANSWER_FORMATS:
        exit_with_error(f"--format is one of {', '.join(ANSWER_FORMATS)}, not {file_format!r}")
    found = read_query(question)
    if found.query is None:
        make_console().print(render_diagnostics("QUESTION", question, found.diagnostics))
        sys.exit(EXIT_USAGE)
    require_file(db)
    document = fetch_answer(access, question) if db is None else read_answer(db, found.query)
    sys.stdout.buffer.write(ANSWER_FORMATS[file_format].render(document))
    if document.warning and file_format != "table":  # which says so itself
        typer.echo(f"spanproof: {document.warning}", err=True)


@add_option_group("access", ServerAccess)
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
    poll_for: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="For how long to look; once unless told.")
    ] = "0s",
    every: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait between looks.")] = "30s",
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="End at the first pass, too, not only at the first failure.")
    ] = False,
    access: ServerAccess,
) -> None:
    """Ask a server whether proofs hold, again and again while the traces cannot tell."""
    from spanproof.api.commands.gate import poll_until_decided
    from spanproof.query_lang.check.submitted_proofs import read_submitted_proof
    from spanproof.query_lang.syntax.literals import read_duration_ns

    limits = {}
    for option, told in (("--for", poll_for), ("--every", every)):
        try:
            limits[option] = read_duration_ns(told)
        except ValueError as error:
            exit_with_error(f"{option}: {error}")
    try:
        variables, _ = read_variables(var or (), ())
    except ValueError as error:
        exit_with_error(str(error))
    if limits["--for"] < 0 or limits["--every"] <= 0:
        exit_with_error("--for and --every are times to wait")
    if (path is None) == (stored is None):
        exit_with_error("give either PROOF, a file, or --stored, the name of a proof that the server keeps")
    body: dict[str, object] = {"variables": variables}
    if path is None:
        body["stored"] = stored
    else:
        text = read_or_exit(path, lambda path: path.read_text(encoding="utf-8-sig"))
        if print_diagnostics([read_submitted_proof(text, path.as_posix(), allow_requests=True)]):
            sys.exit(EXIT_USAGE)
        body |= {"proof": text, "name": path.as_posix()}
    outcome = poll_until_decided(
        access, body, limits["--for"], limits["--every"], make_console(), until_decided=until_decided
    )
    sys.exit(outcome)


def require_file(db: str | None) -> None:
    """Leave unless the file is there."""
    if db is not None and not Path(db).exists():
        exit_with_error(f"{db}: no such file")
