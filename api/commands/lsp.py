"""``spanproof lsp``: starts the language server for editors."""

from __future__ import annotations

from typing import Annotated

import typer

from spanproof.api.cli.command_app import make_command_app
from spanproof.api.cli.exits import exit_with_error, require_file

app = make_command_app()


@app.command(
    short_help="Serve an editor over standard input and output.",
    epilog="Example: spanproof lsp --db spans.duckdb (an editor starts it)",
)
def lsp(
    *,
    db: Annotated[
        str | None, typer.Option("--db", metavar="FILE", help="A store: complete the services that it contains.")
    ] = None,
) -> None:
    """Serve an editor over standard input and output: diagnostics, completion, hover texts, formatting."""
    try:
        from spanproof.query_lang.editor.language_server import serve
    except ImportError as error:
        exit_with_error(
            f"the language server needs extra packages ({error.name} is missing): pip install 'spanproof[lsp]'"
        )
    require_file(db)
    serve(db)
