"""Masking of secrets in events, reports and stored runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from spanproof.assertions.reports.documents import RunDocument, describe_verdict
from spanproof.assertions.reports.github import render_annotations, render_step_summary
from spanproof.assertions.reports.history import HistoryWriter
from spanproof.assertions.reports.html_report import render_html
from spanproof.assertions.reports.json_report import render_json
from spanproof.assertions.reports.junit import render_junit
from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.run.events import ClaimJudged, RunEvent
from spanproof.assertions.run.proof_run import RunSettings
from spanproof.assertions.run.runner import Runner
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.secrets import Secrets
from spanproof.query_lang.load.modules import load_module_text
from spanproof.tests.api.stored_traces import StoredSpan, append
from spanproof.tests.assertions.app import App, open_app
from spanproof.tests.command import FREE

ENV, GIVEN, HEADER, LITERAL = "Env/Secret 42+ü", "given-secret-42", "header-secret-42", "literal-secret-42"


@pytest.fixture
def app(store: Store) -> Iterator[App]:
    with Receiver(store, FREE, FREE) as receiver, open_app(receiver.http_address) as app:
        yield app


@pytest.fixture
def run_proof(
    store: Store, app: App, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[list[RunEvent], RunDocument, str]]:
    """Return a function that runs statements and returns events, document, and all printed and stored text."""
    monkeypatch.setenv("SECRET", ENV)

    def run_proof(statements: str, within: str = "300ms") -> tuple[list[RunEvent], RunDocument, str]:
        text = f"""let token = env("SECRET")
let given = "set from outside"
proof "p" {{
  settle within {within} quiet 20ms
  {statements.replace("BASE", app.base_url)}
}}
"""
        module = load_module_text(text, Path("p.proof"), "p.proof")
        assert module.diagnostics == ()
        out = io.StringIO()
        terminal = TerminalReport(Console(file=out, width=200, soft_wrap=True, force_terminal=True, color_system=None))
        events: list[RunEvent] = []
        secrets = Secrets()
        if "given" in statements:
            secrets.add(GIVEN)

        def emit(event: RunEvent) -> None:
            events.append(event)
            terminal(event)
            history(event)

        runner = Runner(store, emit, RunSettings({"given": GIVEN}, secrets=secrets), retries=1)
        history = HistoryWriter(store, runner.run_settings.run_id, "run")
        runner.run([(module, proof) for proof in module.proofs])
        run = history.document
        with closing(store.cursor()) as cursor:
            stored = cursor.execute("FROM runs").fetchall() + cursor.execute("FROM run_proofs").fetchall()
        reports = [render_junit(run), render_json(run), render_html(run)]
        documents = [describe_verdict(event) for event in events if isinstance(event, ClaimJudged)]
        shown = [out.getvalue(), repr(documents), repr(stored), render_annotations(run), render_step_summary(run)]
        return events, run, "\n".join([*shown, *(each.decode() for each in reports)])

    return run_proof


def check_hidden(shown: str, *secrets: str) -> None:
    assert "***" in shown
    for secret in secrets:
        for variant in (secret, json.dumps(secret)[1:-1], secret.lower(), secret.upper()):
            assert variant not in shown, shown[max(0, shown.index(variant) - 200) : shown.index(variant) + 100]
    assert not {"Env%2FSecret", "Env/Secret"} & set(shown.replace("&", " ").replace('"', " ").split())


@pytest.mark.parametrize(
    ("statements", "secret", "part"),
    [
        # a value that a claim reads
        ('when GET "BASE/"\n expect token == "x"', ENV, "reason"),
        ('when GET "BASE/"\n expect upper(token) == "x"', ENV, "reason"),
        ('when GET "BASE/"\n expect given == "x"', GIVEN, "reason"),
        (
            'when GET "BASE/" { header "authorization": "Bearer {given}-2" }\n expect response.json.echo == "x"',
            GIVEN, "reason",
        ),
        (
            f'let x = "{HEADER}"\n when GET "BASE/" {{ header "authorization": x }}\n expect response.body == "x"',
            HEADER, "reason",
        ),
        # the text of the proof
        (
            f'when GET "BASE/" {{ header "authorization": "Bearer {LITERAL}" }}\n'
            f' expect response.json.echo == "{LITERAL}"', LITERAL, "claim",
        ),
        (f'when GET "BASE/" {{ header "x-key": "{LITERAL}" }}\n expect 1 == 2 as "{LITERAL}"', LITERAL, "claim"),
        # a path with another operation: the name of the span is in the reason and in the trace
        ('when GET "BASE/{given}"\n expect path shop "GET /other"', GIVEN, "trace"),
        ('when GET "BASE/{given}"\n expect every shop has name == "x"', GIVEN, "reason"),
        ('when GET "BASE/{given}"\n expect 1 == 2\n expect count(span) == 3', GIVEN, "trace"),
        ('when GET "BASE/{given}"\n expect count(shop) == 7', GIVEN, "attributes"),
        # an error
        ('when GET "nowhere/{given}"\n expect 1 == 1', GIVEN, "error"),
        ('when GET "http://127.0.0.1:1/" { query "q": token }\n expect 1 == 1', ENV, "error"),
        ('when run "no-such-{given}"\n expect 1 == 1', GIVEN, "error"),
    ],
)  # fmt: skip
def test_secrets_are_masked_everywhere(
    run_proof: Callable[[str], tuple[list[RunEvent], RunDocument, str]], statements: str, secret: str, part: str
) -> None:
    _, run, shown = run_proof(statements)
    check_hidden(shown, ENV, secret)
    (proof,) = run.proofs
    assert len(proof.tries) == 1
    for each in (proof, *proof.tries):
        texts = {
            "reason": [verdict.reason for verdict in each.verdicts],
            "claim": [verdict.claim.replace("*****", "***") for verdict in each.verdicts],
            "trace": [span.name for span in each.trace.spans] if each.trace else [],
            "attributes": [text for span in each.trace.spans for text in span.attributes.values()]
            if each.trace
            else [],
            "error": [each.error or ""],
        }
        assert any("***" in text for text in texts[part]), texts


def test_awaited_spans_are_masked(
    run_proof: Callable[..., tuple[list[RunEvent], RunDocument, str]], store: Store
) -> None:
    append(store, StoredSpan(GIVEN, "GET", 1, 3, 2))
    # the limit is long enough for one evaluation on a busy machine
    _, run, shown = run_proof(f'let unused = given\n when trace "{1:032x}"\n expect no shop -> bank', within="2s")
    check_hidden(shown, GIVEN)
    (proof,) = run.proofs
    awaited = "`***` sent the span `GET`, whose parent has not arrived"
    assert awaited in proof.waits[0].missing
    assert awaited in proof.verdicts[0].reason


def test_public_headers_are_not_secret(run_proof: Callable[..., tuple[list[RunEvent], RunDocument, str]]) -> None:
    _, run, _ = run_proof('when GET "BASE/" { header "Accept": "text/plain" }\n expect "text/plain" == "x"')
    assert run.proofs[0].verdicts[0].reason.startswith('"text/plain" is text/plain')


# ## Masked texts


def make_secrets(*values: str) -> Secrets:
    secrets = Secrets()
    for value in values:
        secrets.add(value)
    return secrets


@pytest.mark.parametrize(
    ("values", "text", "masked"),
    [
        (["abcd"], "xabcdx abcd", "x***x ***"),
        (["abcd"], "ABCD", "***"),
        (["abc"], "abc", "abc"),
        ([""], "text", "text"),
        ([" abcd\n"], "abcd", "***"),
        (["abcd", "cdef"], "abcdef", "***"),
        (["abcd", "abcdef"], "abcdef", "***"),
        (["a/b c"], "a%2Fb%20c a/b%20c a%2Fb+c", "*** *** ***"),
        (["a/b&c=ü"], "a/b%26c=%c3%BC a%2fb&c%3Dü %ff%a/b&c=%C3%BC%C3", "*** *** %ff%***%C3"),
        (['qu"ote'], '{"a": "qu\\"ote"}', '{"a": "***"}'),
        (["ümläut"], '"\\u00fcml\\u00e4ut"', '"***"'),
        (["first line\nsecond line"], "second line", "***"),
        (["first line\nsecond line"], "first line\\nsecond line", "***"),
    ],
)
def test_encoded_secrets_are_masked(values: list[str], text: str, masked: str) -> None:
    assert make_secrets(*values).mask(text) == masked


def test_masking_keeps_length() -> None:
    secrets = make_secrets("first line\nsecond line")
    assert secrets.mask_keeping_length("a first line\nsecond line b") == "a **********\n*********** b"
    assert Secrets().is_empty
    assert Secrets().mask("abcd") == "abcd"
