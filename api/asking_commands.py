"""The commands that ask a server, or a file in its place: `trace` and `query`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from spanproof.api.access import Access
from spanproof.api.option_groups import takes
from spanproof.api.shell import USAGE, console, fail
from spanproof.assertions.reports.terminal import render_diagnostics, render_trace

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
    read = read_question(question)
    if read.question is None:
        console().print(render_diagnostics("QUESTION", question, read.diagnostics))
        sys.exit(USAGE)
    check_file(db)
    document = fetch_answer(access, question) if db is None else read_answer(db, read.question)
    sys.stdout.buffer.write(FORMATS[file_format].render(document))


def check_file(db: str | None) -> None:
    """Leave unless the file is there."""
    if db is not None and not Path(db).exists():
        fail(f"{db}: no such file")
