"""``spanproof lsp``: a language server for editors, over standard input and output."""

from __future__ import annotations

import re
from pathlib import Path

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.workspace import TextDocument
from pygls.workspace.position_codec import ServerTextPosition, ServerTextRange

from spanproof import __version__
from spanproof.collector.seen import Seen, read_seen
from spanproof.collector.semconv import DEPRECATED, FACTS
from spanproof.query_lang.diagnostics import Diagnostic, locate
from spanproof.query_lang.format import format_file
from spanproof.query_lang.help import FIELD_HELP, FUNCTION_HELP, WORD_HELP
from spanproof.query_lang.modules import Module, load_text
from spanproof.query_lang.parse import keywords
from spanproof.query_lang.syntax import Source
from spanproof.query_lang.unseen import find_unseen

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[-.][A-Za-z0-9_]+)*")


def make_server(seen: Seen) -> LanguageServer:
    """Make the server; `seen` is what it completes besides the language's own words."""
    server = LanguageServer("spanproof", f"v{__version__}")

    def publish(uri: str) -> None:
        document = server.workspace.get_text_document(uri)
        module = _load(document)
        problems = (*module.diagnostics, *(find_unseen(module, seen) if seen.operations else ()))
        found = [_diagnostic(document, each) for each in problems]
        server.text_document_publish_diagnostics(
            lsp.PublishDiagnosticsParams(uri=uri, diagnostics=found, version=document.version)
        )

    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        publish(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        publish(params.text_document.uri)

    @server.feature(
        lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=[".", " ", "(", "[", '"', ">"])
    )
    def complete(params: lsp.CompletionParams) -> list[lsp.CompletionItem]:
        document = server.workspace.get_text_document(params.text_document.uri)
        return _complete(document.source, document.offset_at_position(params.position), seen)

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        document = server.workspace.get_text_document(params.text_document.uri)
        help_ = _help(document.source, document.offset_at_position(params.position), seen)
        return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.PlainText, help_)) if help_ else None

    @server.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def lay_out(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
        document = server.workspace.get_text_document(params.text_document.uri)
        file = _load(document).file
        if file.diagnostics:
            return None
        whole = _range(document, Source(0, len(document.source)))
        return [lsp.TextEdit(whole, format_file(file))]

    return server


def serve(db: str | None) -> None:
    """Serve over standard input and output until the editor is done. Raises Unusable."""
    make_server(Seen() if db is None else read_seen(db)).start_io()


def _load(document: TextDocument) -> Module:
    path = Path(document.path)
    return load_text(document.source, path, path.name)


def _range(document: TextDocument, at: Source) -> lsp.Range:
    """Return a stretch of the text as the client counts it: lines from 0, columns in its own units."""
    ends = []
    for offset in (at.start, min(at.end, len(document.source))):
        position = locate(document.source, offset)
        ends.append(ServerTextPosition(position.line - 1, position.column - 1))
    return document.range_to_client_units(ServerTextRange(start=ends[0], end=ends[1]))


def _diagnostic(document: TextDocument, found: Diagnostic) -> lsp.Diagnostic:
    message = f"{found.message}\n{found.help}" if found.help else found.message
    severity = lsp.DiagnosticSeverity.Error if found.severity == "error" else lsp.DiagnosticSeverity.Warning
    return lsp.Diagnostic(_range(document, found.at), message, severity, code=found.id, source="spanproof")


def _complete(text: str, offset: int, seen: Seen) -> list[lsp.CompletionItem]:
    """Offer what may stand at `offset`: operations inside a string after a service, else words and names."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    if line.count('"') % 2:
        service = WORD.findall(line[: line.rfind('"')])
        names = seen.operations.get(service[-1], ()) if service else ()
        return [_item(name, lsp.CompletionItemKind.Value, f"seen of {service[-1]}") for name in names]
    items = [_item(name, lsp.CompletionItemKind.Function, help_) for name, help_ in FUNCTION_HELP.items()]
    items += [_item(name, lsp.CompletionItemKind.Keyword, WORD_HELP.get(name)) for name in keywords()]
    items += [_item(name, lsp.CompletionItemKind.Field, help_) for name, help_ in FIELD_HELP.items()]
    items += [_item(name, lsp.CompletionItemKind.Module, "a service seen") for name in seen.operations]
    attributes = sorted({*DEPRECATED, *FACTS.values(), *seen.attributes})
    return items + [_item(name, lsp.CompletionItemKind.Property, "an attribute") for name in attributes]


def _item(name: str, kind: lsp.CompletionItemKind, detail: str | None) -> lsp.CompletionItem:
    return lsp.CompletionItem(label=name, kind=kind, detail=detail)


def _help(text: str, offset: int, seen: Seen) -> str | None:
    """Explain the word at `offset`."""
    for match in WORD.finditer(text):
        if match.start() <= offset <= match.end():
            word = match.group()
            if text[match.end() : match.end() + 1] == "(" and word in FUNCTION_HELP:
                return FUNCTION_HELP[word]
            if word in seen.operations:
                return f"a service seen, with {', '.join(seen.operations[word])}"
            return WORD_HELP.get(word) or FIELD_HELP.get(word) or FUNCTION_HELP.get(word)
    return None
