"""Proofs that a server carries out for others, sent to it or stored there: kept from what only an owner may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spanproof.query_lang import syntax as s
from spanproof.query_lang.check import check_file
from spanproof.query_lang.diagnostics import Diagnostic
from spanproof.query_lang.library import Definition, Library
from spanproof.query_lang.modules import Bounds, Module, load_text
from spanproof.query_lang.parse import ProofFile, parse_file


def read_sent(text: str, name: str, *, may_send: bool) -> Module:
    """Parse and check a text that was sent under a name; with `may_send`, it may contain requests over HTTP."""
    file = parse_file(text, name)
    defines = {item.name: Definition(file, item) for item in file.items if isinstance(item, s.Define)}
    library = Library(defines=defines)
    found = (*check_file(file, library), *_find_forbidden(file, may_send=may_send, may_use=False))
    return Module(file, library, tuple(sorted(found, key=lambda each: (each.at.start, each.id))))


def read_stored(path: Path, name: str, folder: Path, *, may_send: bool) -> Module:
    """Read a file of a server's folder, which may use others of it, and is otherwise as one that was sent.

    Raises OSError, UnicodeDecodeError.
    """
    bounds = Bounds(folder, lambda file: _find_forbidden(file, may_send=may_send, may_use=True))
    return load_text(path.read_text(encoding="utf-8-sig"), path, name, bounds)


def _find_forbidden(file: ProofFile, *, may_send: bool, may_use: bool) -> Iterator[Diagnostic]:
    for item in file.items:
        for part in s.walk(item):
            match part:
                case s.Use() if not may_use:
                    yield _forbid("`use` reads files of the server", part.at, "put what it needs into the text itself")
                case s.When(kind="run"):
                    yield _forbid("`when run` starts programs", part.at, "use `spanproof run` where they may run")
                case s.When(kind="publish", targets=(s.Name(text="kafka"), *_)):
                    yield _forbid(
                        "Kafka's brokers name other brokers, which this server could not check",
                        part.at,
                        "use `spanproof run` where they may be asked",
                    )
                case s.Option(kind="file" | "descriptors") | s.Option(kind="tls", value=s.Text()):
                    yield _forbid("this reads a file of the server", part.at, "use `spanproof run` where the file is")
                case s.When(kind=kind) if kind != "trace" and not may_send:
                    message = "this server sends no requests for others"
                    yield _forbid(
                        message, part.at, "judge stored traces with `given traces`, or name one: `when trace`"
                    )
                case s.Function(name="env"):
                    yield _forbid("`env` reads the server's environment", part.at, "send the value as a variable")
                case s.Contract():
                    yield _forbid("this reads a file of the server", part.at, "use `spanproof run` where the file is")


def _forbid(message: str, at: s.Source, help_: str) -> Diagnostic:
    return Diagnostic("not-allowed", message, at, help_)
