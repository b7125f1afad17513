"""Restrictions on submitted and stored proofs, which a server runs for clients with fewer rights than its owner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spanproof.query_lang.check.checker import check_file
from spanproof.query_lang.check.definitions import Definitions, LoadedDefinition
from spanproof.query_lang.load.modules import FileRestrictions, ProofModule, load_module_text
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.parser import ParsedFile, parse_file


def read_submitted_proof(text: str, name: str, *, allow_requests: bool) -> ProofModule:
    """Parse and check a submitted text. With `allow_requests`, it can contain requests over HTTP."""
    file = parse_file(text, name)
    defines = {item.name: LoadedDefinition(file, item) for item in file.items if isinstance(item, s.Define)}
    definitions = Definitions(defines=defines)
    problems = (*check_file(file, definitions), *_find_forbidden(file, allow_requests=allow_requests, allow_use=False))
    return ProofModule(file, definitions, tuple(sorted(problems, key=lambda problem: (problem.at.start, problem.id))))


def read_stored_proof(path: Path, name: str, folder: Path, *, allow_requests: bool) -> ProofModule:
    """Read a proof file of a server's folder.

    It can use other files of the folder. Otherwise it has the restrictions of a submitted proof. Raises OSError,
    UnicodeDecodeError.
    """
    restrictions = FileRestrictions(
        folder, lambda file: _find_forbidden(file, allow_requests=allow_requests, allow_use=True)
    )
    return load_module_text(path.read_text(encoding="utf-8-sig"), path, name, restrictions)


def _find_forbidden(file: ParsedFile, *, allow_requests: bool, allow_use: bool) -> Iterator[Diagnostic]:
    for item in file.items:
        for part in s.walk(item):
            match part:
                case s.Use() if not allow_use:
                    yield _make_not_allowed(
                        "`use` reads files of the server", part.at, "copy the definitions into the text"
                    )
                case s.When(kind="run"):
                    yield _make_not_allowed(
                        "`when run` starts programs", part.at, "use `spanproof run` on a machine where they may run"
                    )
                case s.When(kind="publish", targets=(s.Name(text="kafka"), *_)):
                    yield _make_not_allowed(
                        "Kafka's brokers name other brokers, which this server cannot check",
                        part.at,
                        "use `spanproof run` on a machine that may connect to them",
                    )
                case s.Option(kind="file" | "descriptors") | s.Option(kind="tls", value=s.Text()):
                    yield _make_not_allowed(
                        "this reads a file of the server", part.at, "use `spanproof run` where the file is"
                    )
                case s.When(kind=kind) if kind != "trace" and not allow_requests:
                    message = "this server does not send requests for clients"
                    yield _make_not_allowed(
                        message, part.at, "judge stored traces with `given traces`, or name one: `when trace`"
                    )
                case s.Function(name="env"):
                    yield _make_not_allowed(
                        "`env` is not allowed in a proof that a server runs",
                        part.at,
                        'declare `let base = "…"` and set it with --var',
                    )
                case s.Contract():
                    yield _make_not_allowed(
                        "this reads a file of the server", part.at, "use `spanproof run` where the file is"
                    )


def _make_not_allowed(message: str, at: s.TextRange, help_: str) -> Diagnostic:
    return Diagnostic("not-allowed", message, at, help_)
