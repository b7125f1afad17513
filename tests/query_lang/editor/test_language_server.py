"""The language server as an editor sees it: started as a process, spoken to over its standard streams."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_lsp
from lsprotocol import types as lsp
from pytest_lsp import ClientServerConfig, LanguageClient

from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.tests.api.send_spans import make_request

COMMAND = str(Path(sys.executable).with_name("spanproof"))
TEXT = 'proof "µ 𝒳" {\n  when GET "http://127.0.0.1:1/"\n  expect durration(gateway) < 5ms\n}\n'
URI = "file:///checks/x.proof"


@pytest_lsp.fixture(config=ClientServerConfig(server_command=[COMMAND, "lsp"]))
async def client(lsp_client: LanguageClient) -> AsyncIterator[None]:
    await lsp_client.initialize_session(
        lsp.InitializeParams(capabilities=lsp.ClientCapabilities(), root_uri="file:///checks")
    )
    yield
    await lsp_client.shutdown_session()


async def test_problems_are_published_as_the_text_changes(client: LanguageClient) -> None:
    opened = lsp.TextDocumentItem(uri=URI, language_id="proof", version=1, text=TEXT)
    client.text_document_did_open(lsp.DidOpenTextDocumentParams(opened))
    await client.wait_for_notification(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    (problem,) = client.diagnostics[URI]
    assert problem.code == "unknown-function"
    assert problem.range == lsp.Range(lsp.Position(2, 9), lsp.Position(2, 18))
    client.text_document_did_change(
        lsp.DidChangeTextDocumentParams(
            lsp.VersionedTextDocumentIdentifier(uri=URI, version=2),
            [lsp.TextDocumentContentChangeWholeDocument(TEXT.replace("durration", "duration"))],
        )
    )
    await client.wait_for_notification(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    assert not client.diagnostics[URI]


async def test_words_are_completed_explained_and_formatted(client: LanguageClient) -> None:
    text = 'proof "x" {\n    when GET "http://127.0.0.1:1/"\n  expect p95(duration(a))<5ms\n}\n'
    uri = "file:///checks/y.proof"
    client.text_document_did_open(lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(uri, "proof", 1, text)))
    document = lsp.TextDocumentIdentifier(uri)
    items = await client.text_document_completion_async(lsp.CompletionParams(document, lsp.Position(2, 9)))
    labels = {item.label for item in items}
    assert {"p95", "duration", "every", "http.response.status_code"} <= labels
    hover = await client.text_document_hover_async(lsp.HoverParams(document, lsp.Position(2, 11)))
    assert "95th percentile" in hover.contents.value
    options = lsp.FormattingOptions(tab_size=2, insert_spaces=True)
    edits = await client.text_document_formatting_async(lsp.DocumentFormattingParams(document, options))
    assert [edit.new_text for edit in edits] == [
        'proof "x" {\n  when GET "http://127.0.0.1:1/"\n  expect p95(duration(a)) < 5ms\n}\n'
    ]


def test_completion_offers_catalog_of_store(tmp_path: Path) -> None:
    from spanproof.assertions.cases.case_file import parse_cases
    from spanproof.assertions.cases.scenario_requests import CaseRequests
    from spanproof.assertions.cases.variations import VARIATIONS
    from spanproof.query_lang.editor.language_server import _list_completions, read_catalog

    text = 'trace a\n  gateway "GET /x" server 0ms..1ms { shop.cart: "c" }\nassert count(gateway) == 1\n  pass\n'
    (scene,) = parse_cases(text)
    traces = scene.assertions[0][0]
    with Store.open(tmp_path / "seen.duckdb") as store:
        for request in CaseRequests(traces, VARIATIONS[0]).build_requests(traces):
            store.append(Decoder().decode([request.SerializeToString()]))
    seen = read_catalog(str(tmp_path / "seen.duckdb"))
    assert [item.label for item in _list_completions('expect count(gateway "', 22, seen)] == ["GET /x"]
    labels = {item.label for item in _list_completions("expect count(", 13, seen)}
    assert {"gateway", "shop.cart"} <= labels


async def test_store_is_set_by_option(tmp_path: Path) -> None:
    with Store.open(tmp_path / "seen.duckdb") as store:
        store.append(Decoder().decode([make_request(**{"shop.cart": "c"})]))
    command = [COMMAND, "lsp", "--db", str(tmp_path / "seen.duckdb")]
    client = await ClientServerConfig(server_command=command).start()
    try:
        await client.initialize_session(lsp.InitializeParams(capabilities=lsp.ClientCapabilities()))
        opened = lsp.TextDocumentItem(uri=URI, language_id="proof", version=1, text="expect every span has ")
        client.text_document_did_open(lsp.DidOpenTextDocumentParams(opened))
        place = lsp.CompletionParams(lsp.TextDocumentIdentifier(URI), lsp.Position(0, 22))
        items = await client.text_document_completion_async(place)
        assert "shop.cart" in {item.label for item in items}
    finally:
        await client.shutdown_session()
