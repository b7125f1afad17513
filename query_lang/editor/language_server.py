"""``spanproof lsp``: a language server for editors, over standard input and output."""

from __future__ import annotations

import re
from pathlib import Path

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.workspace import TextDocument
from pygls.workspace.position_codec import ServerTextPosition, ServerTextRange

from spanproof import __version__
from spanproof.collector.otlp.semantic_conventions import DEPRECATED_NAMES, EXTRACTED_ATTRIBUTES
from spanproof.collector.traces.catalog import Catalog, read_catalog
from spanproof.query_lang.editor.hover_texts import FIELD_HELP, FUNCTION_HELP, WORD_HELP
from spanproof.query_lang.load.modules import ProofModule, load_module_text
from spanproof.query_lang.load.unknown_names import find_unknown_names
from spanproof.query_lang.syntax.diagnostics import Diagnostic, locate_offset
from spanproof.query_lang.syntax.formatter import format_file
from spanproof.query_lang.syntax.literals import NAME
from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.syntax.parser import list_keywords

_NAME_PATTERN = re.compile(NAME)


def make_server(catalog: Catalog) -> LanguageServer:
    """Make the server; `seen` is what it completes besides the language's own words."""
    server = LanguageServer("spanproof", f"v{__version__}")

    def publish(uri: str) -> None:
        document = server.workspace.get_text_document(uri)
        module = _load_module(document)
        problems = (*module.diagnostics, *(find_unknown_names(module, catalog) if catalog.operations else ()))
        found = [_make_diagnostic(document, each) for each in problems]
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
        return _list_completions(document.source, document.offset_at_position(params.position), catalog)

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        document = server.workspace.get_text_document(params.text_document.uri)
        help_ = _find_hover_text(document.source, document.offset_at_position(params.position), catalog)
        return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.PlainText, help_)) if help_ else None

    @server.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def lay_out(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
        document = server.workspace.get_text_document(params.text_document.uri)
        file = _load_module(document).file
        if file.diagnostics:
            return None
        whole = _make_range(document, TextRange(0, len(document.source)))
        return [lsp.TextEdit(whole, format_file(file))]

    return server


def serve(db: str | None) -> None:
    """Serve over standard input and output until the editor is done. Raises UserError."""
    make_server(Catalog() if db is None else read_catalog(db)).start_io()


def _load_module(document: TextDocument) -> ProofModule:
    path = Path(document.path)
    return load_module_text(document.source, path, path.name)


def _make_range(document: TextDocument, at: TextRange) -> lsp.Range:
    """Return a stretch of the text as the client counts it: lines from 0, columns in its own units."""
    ends = []
    for offset in (at.start, min(at.end, len(document.source))):
        position = locate_offset(document.source, offset)
        ends.append(ServerTextPosition(position.line - 1, position.column - 1))
    return document.range_to_client_units(ServerTextRange(start=ends[0], end=ends[1]))


def _make_diagnostic(document: TextDocument, found: Diagnostic) -> lsp.Diagnostic:
    message = f"{found.message}\n{found.help}" if found.help else found.message
    severity = lsp.DiagnosticSeverity.Error if found.severity == "error" else lsp.DiagnosticSeverity.Warning
    return lsp.Diagnostic(_make_range(document, found.at), message, severity, code=found.id, source="spanproof")


def _list_completions(text: str, offset: int, catalog: Catalog) -> list[lsp.CompletionItem]:
    """Offer what may stand at `offset`: operations inside a string after a service, else words and names."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    if line.count('"') % 2:
        service = _NAME_PATTERN.findall(line[: line.rfind('"')])
        names = catalog.operations.get(service[-1], ()) if service else ()
        return [_make_item(name, lsp.CompletionItemKind.Value, f"seen of {service[-1]}") for name in names]
    items = [_make_item(name, lsp.CompletionItemKind.Function, help_) for name, help_ in FUNCTION_HELP.items()]
    items += [_make_item(name, lsp.CompletionItemKind.Keyword, WORD_HELP.get(name)) for name in list_keywords()]
    items += [_make_item(name, lsp.CompletionItemKind.Field, help_) for name, help_ in FIELD_HELP.items()]
    items += [_make_item(name, lsp.CompletionItemKind.Module, "a service seen") for name in catalog.operations]
    attributes = sorted({*DEPRECATED_NAMES, *EXTRACTED_ATTRIBUTES.values(), *catalog.attributes})
    return items + [_make_item(name, lsp.CompletionItemKind.Property, "an attribute") for name in attributes]


def _make_item(name: str, kind: lsp.CompletionItemKind, detail: str | None) -> lsp.CompletionItem:
    return lsp.CompletionItem(label=name, kind=kind, detail=detail)


def _find_hover_text(text: str, offset: int, catalog: Catalog) -> str | None:
    """Explain the word at `offset`."""
    for match in _NAME_PATTERN.finditer(text):
        if match.start() <= offset <= match.end():
            word = match.group()
            if text[match.end() : match.end() + 1] == "(" and word in FUNCTION_HELP:
                return FUNCTION_HELP[word]
            if word in catalog.operations:
                return f"a service seen, with {', '.join(catalog.operations[word])}"
            return WORD_HELP.get(word) or FIELD_HELP.get(word) or FUNCTION_HELP.get(word)
    return None
