"""Proofs that a server carries out for others, sent to it or stored there: kept from what only an owner may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spanproof.query_lang.check.checker import check_file
from spanproof.query_lang.check.definitions import Definitions, LoadedDefinition
from spanproof.query_lang.check.modules import FileRestrictions, ProofModule, load_module_text
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.parser import ParsedFile, parse_file


def read_submitted_proof(text: str, name: str, *, allow_requests: bool) -> ProofModule:
    """Parse and check a text that was sent under a name; with `may_send`, it may contain requests over HTTP."""
    file = parse_file(text, name)
    defines = {item.name: LoadedDefinition(file, item) for item in file.items if isinstance(item, s.Define)}
    library = Definitions(defines=defines)
    found = (*check_file(file, library), *_find_forbidden(file, allow_requests=allow_requests, allow_use=False))
    return ProofModule(file, library, tuple(sorted(found, key=lambda each: (each.at.start, each.id))))


def read_stored_proof(path: Path, name: str, folder: Path, *, allow_requests: bool) -> ProofModule:
    """Read a file of a server's folder, which may use others of it, and is otherwise as one that was sent.

    Raises OSError, UnicodeDecodeError.
    """
    bounds = FileRestrictions(folder, lambda file: _find_forbidden(file, allow_requests=allow_requests, allow_use=True))
    return load_module_text(path.read_text(encoding="utf-8-sig"), path, name, bounds)


def _find_forbidden(file: ParsedFile, *, allow_requests: bool, allow_use: bool) -> Iterator[Diagnostic]:
    for item in file.items:
        for part in s.walk(item):
            match part:
                case s.Use() if not allow_use:
                    yield _make_not_allowed(
                        "`use` reads files of the server", part.at, "put what it needs into the text itself"
                    )
                case s.When(kind="run"):
                    yield _make_not_allowed(
                        "`when run` starts programs", part.at, "use `spanproof run` where they may run"
                    )
                case s.When(kind="publish", targets=(s.Name(text="kafka"), *_)):
                    yield _make_not_allowed(
                        "Kafka's brokers name other brokers, which this server could not check",
                        part.at,
                        "use `spanproof run` where they may be asked",
                    )
                case s.Option(kind="file" | "descriptors") | s.Option(kind="tls", value=s.Text()):
                    yield _make_not_allowed(
                        "this reads a file of the server", part.at, "use `spanproof run` where the file is"
                    )
                case s.When(kind=kind) if kind != "trace" and not allow_requests:
                    message = "this server sends no requests for others"
                    yield _make_not_allowed(
                        message, part.at, "judge stored traces with `given traces`, or name one: `when trace`"
                    )
                case s.Function(name="env"):
                    yield _make_not_allowed(
                        "`env` reads the server's environment", part.at, "send the value as a variable"
                    )
                case s.Contract():
                    yield _make_not_allowed(
                        "this reads a file of the server", part.at, "use `spanproof run` where the file is"
                    )


def _make_not_allowed(message: str, at: s.TextRange, help_: str) -> Diagnostic:
    return Diagnostic("not-allowed", message, at, help_)
