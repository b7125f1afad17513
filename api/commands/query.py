"""``spanproof query`` and ``spanproof trace``: numbers and traces from a server, or from a file."""

from __future__ import annotations

import re
import sys
from typing import Annotated, TypeAlias

import typer

from spanproof.api.cli.command_app import add_option_group, make_command_app
from spanproof.api.cli.console import make_console
from spanproof.api.cli.exits import EXIT_USAGE, exit_with_error, require_file
from spanproof.api.cli.server_connection import ServerAccess

DatabaseFile: TypeAlias = Annotated[
    str | None, typer.Option("--db", metavar="FILE", help="Read this file instead of querying a server.")
]

query_app = make_command_app()
trace_app = make_command_app()


@trace_app.command(epilog="Example: spanproof trace 4bf92f3577b34da6a3ce929d0e0e4736 --db spans.duckdb")
@add_option_group("access", ServerAccess)
def trace(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="The trace id, 32 hexadecimal digits.")],
    *,
    db: DatabaseFile = None,
    access: ServerAccess,
) -> None:
    """Draw a stored trace as a waterfall."""
    if not re.fullmatch("[0-9a-fA-F]{32}", trace_id):
        exit_with_error(f"{trace_id!r} is not a trace id: 32 hexadecimal digits")
    from spanproof.api.cli.client import fetch_trace, read_trace
    from spanproof.assertions.reports.terminal import render_trace

    require_file(db)
    view = fetch_trace(access, trace_id.lower()) if db is None else read_trace(db, trace_id.lower())
    if view is None:
        exit_with_error(f"no span of trace {trace_id} is stored", 1)
    make_console().print(render_trace(view), end="")


@query_app.command(
    short_help="Evaluate one number over stored traces.",
    epilog="Example: spanproof query 'p95(duration(gateway)) by http.route over last 1h'",
)
@add_option_group("access", ServerAccess)
def query(
    query_text: Annotated[
        str, typer.Argument(metavar="QUERY", help="A number, the fields that group it, and a time window.")
    ],
    *,
    file_format: Annotated[
        str, typer.Option("--format", metavar="table|json|csv|arrow", help="The format of the answer.")
    ] = "table",
    db: DatabaseFile = None,
    access: ServerAccess,
) -> None:
    """Evaluate one number over stored traces, by the values of a field and by steps of time."""
    from spanproof.api.cli.client import fetch_answer, read_answer
    from spanproof.api.http.query_output import ANSWER_FORMATS
    from spanproof.query_lang.compile.queries import read_query

    if file_format not in ANSWER_FORMATS:
        exit_with_error(f"--format is one of {', '.join(ANSWER_FORMATS)}, not {file_format!r}")
    parsed = read_query(query_text)
    if parsed.query is None:
        from spanproof.assertions.reports.terminal import render_diagnostics

        make_console().print(render_diagnostics("QUERY", query_text, parsed.diagnostics))
        sys.exit(EXIT_USAGE)
    require_file(db)
    answer = fetch_answer(access, query_text) if db is None else read_answer(db, parsed.query)
    sys.stdout.buffer.write(ANSWER_FORMATS[file_format].render(answer))
    for warning in answer.warnings if file_format != "table" else ():  # the table shows them
        typer.echo(f"spanproof: {warning}", err=True)
