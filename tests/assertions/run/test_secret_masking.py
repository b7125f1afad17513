"""Secrets are told to nobody, however they get into what is told."""

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
from spanproof.query_lang.check.modules import load_module_text
from spanproof.query_lang.check.secrets import Secrets
from spanproof.tests.api.stored_traces import StoredSpan, append
from spanproof.tests.assertions.app import App, open_app
from spanproof.tests.command import FREE

ENV, GIVEN, HEADER, LITERAL = "Env/Secret 42+ü", "given-secret-42", "header-secret-42", "literal-secret-42"


@pytest.fixture
def app(store: Store) -> Iterator[App]:
    with Receiver(store, FREE, FREE) as receiver, open_app(receiver.http_address) as app:
        yield app


@pytest.fixture
def carry_out(
    store: Store, app: App, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[list[RunEvent], RunDocument, str]]:
    """Carries out the statements of a proof; returns its events, its document, and all that is printed and stored."""
    monkeypatch.setenv("SECRET", ENV)

    def carry_out(statements: str, within: str = "300ms") -> tuple[list[RunEvent], RunDocument, str]:
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
        told: list[RunEvent] = []
        secrets = Secrets()
        if "given" in statements:
            secrets.add(GIVEN)

        def tell(event: RunEvent) -> None:
            told.append(event)
            terminal(event)
            history(event)

        runner = Runner(store, tell, RunSettings({"given": GIVEN}, secrets=secrets), retries=1)
        history = HistoryWriter(store, runner.run_settings.run_id, "run")
        runner.run([(module, proof) for proof in module.proofs])
        run = history.document
        with closing(store.cursor()) as cursor:
            stored = cursor.execute("FROM runs").fetchall() + cursor.execute("FROM run_proofs").fetchall()
        reports = [render_junit(run), render_json(run), render_html(run)]
        documents = [describe_verdict(event) for event in told if isinstance(event, ClaimJudged)]
        shown = [out.getvalue(), repr(documents), repr(stored), render_annotations(run), render_step_summary(run)]
        return told, run, "\n".join([*shown, *(each.decode() for each in reports)])

    return carry_out


def check_hidden(shown: str, *secrets: str) -> None:
    assert "***" in shown
    for secret in secrets:
        for written in (secret, json.dumps(secret)[1:-1], secret.lower(), secret.upper()):
            assert written not in shown, shown[max(0, shown.index(written) - 200) : shown.index(written) + 100]
    assert not {"Env%2FSecret", "Env/Secret"} & set(shown.replace("&", " ").replace('"', " ").split())


@pytest.mark.parametrize(
    ("statements", "secret", "part"),
    [
        # what a claim has seen
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
        # the proof's own text
        (
            f'when GET "BASE/" {{ header "authorization": "Bearer {LITERAL}" }}\n'
            f' expect response.json.echo == "{LITERAL}"', LITERAL, "claim",
        ),
        (f'when GET "BASE/" {{ header "x-key": "{LITERAL}" }}\n expect 1 == 2 as "{LITERAL}"', LITERAL, "claim"),
        # a path with another operation: the span's name is in the reason and in the trace
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
def test_no_secret_is_told(
    carry_out: Callable[[str], tuple[list[RunEvent], RunDocument, str]], statements: str, secret: str, part: str
) -> None:
    _, run, shown = carry_out(statements)
    check_hidden(shown, ENV, secret)
    (proof,) = run.proofs
    assert len(proof.tries) == 1
    for each in (proof, *proof.tries):
        held = {
            "reason": [verdict.reason for verdict in each.verdicts],
            "claim": [verdict.claim.replace("*****", "***") for verdict in each.verdicts],
            "trace": [span.name for span in each.trace.spans] if each.trace else [],
            "attributes": [text for span in each.trace.spans for text in span.attributes.values()]
            if each.trace
            else [],
            "error": [each.error or ""],
        }
        assert any("***" in text for text in held[part]), held


def test_what_is_awaited_is_masked(
    carry_out: Callable[..., tuple[list[RunEvent], RunDocument, str]], store: Store
) -> None:
    append(store, StoredSpan(GIVEN, "GET", 1, 3, 2))
    # on a machine that is busy with other things, too, it is to be looked at once before its time is up
    _, run, shown = carry_out(f'let unused = given\n when trace "{1:032x}"\n expect no shop -> bank', within="2s")
    check_hidden(shown, GIVEN)
    (proof,) = run.proofs
    awaited = "`***` sent the span `GET`, whose parent has not arrived"
    assert awaited in proof.waits[0].missing
    assert awaited in proof.verdicts[0].reason


def test_plain_headers_are_no_secrets(carry_out: Callable[..., tuple[list[RunEvent], RunDocument, str]]) -> None:
    _, run, _ = carry_out('when GET "BASE/" { header "Accept": "text/plain" }\n expect "text/plain" == "x"')
    assert run.proofs[0].verdicts[0].reason.startswith('"text/plain" is text/plain')


# ## What is masked


def hide(*values: str) -> Secrets:
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
def test_secrets_are_found_however_they_are_written(values: list[str], text: str, masked: str) -> None:
    assert hide(*values).mask(text) == masked


def test_a_text_is_blotted_without_moving_anything() -> None:
    secrets = hide("first line\nsecond line")
    assert secrets.mask_keeping_length("a first line\nsecond line b") == "a **********\n*********** b"
    assert Secrets().is_empty
    assert Secrets().mask("abcd") == "abcd"
