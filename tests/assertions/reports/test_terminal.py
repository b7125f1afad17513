"""Terminal report, word for word."""

from __future__ import annotations

import dataclasses
import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from spanproof.assertions.explain.trace_evidence import SpanView, TraceView
from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.reports.terminal import (
    TerminalReport,
    format_short_duration,
    render_diagnostics,
    render_trace,
)
from spanproof.assertions.run.events import (
    ClaimJudged,
    ProofFinished,
    ProofStarted,
    RunEvent,
    RunFinished,
    WaitingForSpans,
)
from spanproof.query_lang.check.checker import check_file
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile, parse_file

MS = 1_000_000
TEXT = """\
proof "card is charged" {
  when POST "http://x/"
  expect path gateway -> payments
  expect retry payments -> bank {
    attempts == 3
    backoff grows
  }
}
"""
TRACE = TraceView(
    "4bf92f3577b34da6a3ce929d0e0e4736", 0, 612 * MS,
    (
        SpanView("01", "gateway", "POST /checkout", "server", 0, 612 * MS, False, False, False, ()),
        SpanView("02", "orders", "POST /orders", "server", 10 * MS, 587 * MS, False, False, False, (True,)),
        SpanView("03", "inventory", "GET /stock", "server", 20 * MS, 36 * MS, False, False, False, (True, False)),
        SpanView("04", "legacy", "POST /charge", "server", 60 * MS, 527 * MS, True, True, True, (True, True)),
    ),
    2,
)  # fmt: skip


@pytest.fixture
def file() -> ParsedFile:
    file = parse_file(TEXT, "checks/checkout.proof")
    assert check_file(file) == ()
    return file


def print_events(*events: RunEvent, width: int = 100, terminal: bool = False, color: bool = False) -> str:
    out = io.StringIO()
    report = TerminalReport(
        Console(
            file=out, width=width, force_terminal=terminal, highlight=False, soft_wrap=True,
            color_system="standard" if color else None,
        )
    )  # fmt: skip
    for event in events:
        report(event)
    return out.getvalue()


def finish(
    file: ParsedFile, *verdicts: Verdict, view: TraceView | None = None, error: str | None = None
) -> ProofFinished:
    (proof,) = file.items
    assert isinstance(proof, s.Proof)
    expectations = [item for item in proof.statements if isinstance(item, s.Expectation)]
    judged = tuple(
        ClaimJudged(file, expectation, verdict) for expectation, verdict in zip(expectations, verdicts, strict=False)
    )
    outcome = Outcome.ERROR if error else max((verdict.outcome for verdict in verdicts), key=list(Outcome).index)
    return ProofFinished(file, proof, outcome, judged, view, 1_234 * MS, error)


def find_range(text: str) -> s.TextRange:
    start = TEXT.index(text)
    return s.TextRange(start, start + len(text))


def passed(reason: str = "in 1 trace") -> Verdict:
    return Verdict(Outcome.PASS, "pass", reason, find_range("path"), "")


def failed() -> Verdict:
    reason = "`gateway` called `legacy`, not `payments`"
    mark, help_ = "not taken; nearest: `legacy`", "if that is intended, write `(payments | legacy)`"
    return Verdict(Outcome.FAIL, "path-mismatch", reason, find_range("payments"), mark, 1, help=help_)


def test_passing_proof_is_one_line_per_claim(file: ParsedFile) -> None:
    assert print_events(finish(file, passed(), passed("1 call, 3 attempts"))) == (
        "PASS  checks/checkout.proof::card is charged   2 passed, 1.2 s\n"
        "  ✓ path gateway -> payments   in 1 trace\n"
        "  ✓ retry payments -> bank { attempts == 3 backoff grows }   1 call, 3 attempts\n"
        "\n"
    )


def test_waterfall_says_which_spans_have_not_ended(file: ParsedFile) -> None:
    spans = [
        dataclasses.replace(span, duration_ns=None) if span.span_id in ("03", "04") else span for span in TRACE.spans
    ]
    trace = dataclasses.replace(TRACE, spans=tuple(spans))
    lines = print_events(finish(file, failed(), view=trace)).splitlines()
    shown = lines[next(index for index, line in enumerate(lines) if "= trace" in line) :]
    assert shown[:5] == [
        "   = trace 4bf92f3577b34da6a3ce929d0e0e4736, at least 612 ms",
        "      gateway       POST /checkout ██████████████████████████    612 ms",
        "      └ orders      POST /orders   █████████████████████████·    587 ms",
        "        ├ inventory GET /stock     ░░░░░░░░░░░░░░░░░░░░░░░░░░ not ended",
        "   !!   └ legacy    POST /charge   ··░░░░░░░░░░░░░░░░░░░░░░░░ not ended error (its parent is missing)",
    ]


def test_failing_proof_shows_excerpt_trace_and_rerun(file: ParsedFile) -> None:
    assert print_events(finish(file, failed(), passed("1 call, 3 attempts"), view=TRACE)) == (
        "FAIL  checks/checkout.proof::card is charged   1 passed, 1 failed, 1.2 s\n"
        "  ✗ path gateway -> payments   `gateway` called `legacy`, not `payments`\n"
        "  ✓ retry payments -> bank { attempts == 3 backoff grows }   1 call, 3 attempts\n"
        "\n"
        "fail[path-mismatch]: `gateway` called `legacy`, not `payments`\n"
        "  --> checks/checkout.proof:3:26\n"
        "   |\n"
        "3  |   expect path gateway -> payments\n"
        "   |                          ^^^^^^^^ not taken; nearest: `legacy`\n"
        "   = help: if that is intended, write `(payments | legacy)`\n"
        "   = trace 4bf92f3577b34da6a3ce929d0e0e4736, 612 ms\n"
        "      gateway       POST /checkout ██████████████████████████   612 ms\n"
        "      └ orders      POST /orders   █████████████████████████·   587 ms\n"
        "        ├ inventory GET /stock     ██························    36 ms\n"
        "   !!   └ legacy    POST /charge   ··███████████████████████·   527 ms error (its parent is missing)\n"
        "      2 spans inside services are not shown\n"
        "   = rerun: spanproof run checks/checkout.proof -k 'card is charged'\n"
        "\n"
    )


def test_multiline_claim_is_marked_on_first_line(file: ParsedFile) -> None:
    text = "retry payments -> bank {\n    attempts == 3\n    backoff grows\n  }"
    verdict = Verdict(Outcome.INCONCLUSIVE, "not-exercised", "not exercised", find_range(text), "not exercised")
    shown = print_events(finish(file, passed(), verdict))
    assert (
        "inconclusive[not-exercised]: not exercised\n"
        "  --> checks/checkout.proof:4:10\n"
        "   |\n"
        "4  |   expect retry payments -> bank {\n"
        "   |          ^^^^^^^^^^^^^^^^^^^^^^^^ not exercised\n"
        "   = rerun"
    ) in shown
    assert shown.startswith("INCONCLUSIVE checks/checkout.proof::card is charged   1 passed, 1 inconclusive, 1.2 s\n")
    assert "  ? retry payments -> bank { attempts == 3 backoff grows }   not exercised\n" in shown


def test_clause_is_marked_on_own_line(file: ParsedFile) -> None:
    verdict = replace(failed(), id="retry-mismatch", at=find_range("backoff grows"), mark="1 of 1 calls", help=None)
    shown = print_events(finish(file, passed(), verdict))
    assert "6  |     backoff grows\n   |     ^^^^^^^^^^^^^ 1 of 1 calls\n" in shown


def test_proof_error_is_shown(file: ParsedFile) -> None:
    assert print_events(finish(file, error="POST http://x/ failed: Connection refused")) == (
        "ERROR checks/checkout.proof::card is charged   1.2 s\n"
        "  ! POST http://x/ failed: Connection refused\n"
        "   = rerun: spanproof run checks/checkout.proof -k 'card is charged'\n"
        "\n"
    )


def test_claim_error_is_marked(file: ParsedFile) -> None:
    verdict = Verdict(Outcome.ERROR, "error", "`base` has no value", find_range("path gateway -> payments"), "")
    shown = print_events(finish(file, verdict, passed()))
    assert shown.startswith("ERROR checks/checkout.proof::card is charged   1 passed, 1 in error, 1.2 s\n")
    assert "error[error]: `base` has no value\n" in shown
    assert "   |          ^^^^^^^^^^^^^^^^^^^^^^^^\n" in shown


@pytest.mark.parametrize(
    ("outcomes", "line"),
    [
        ([Outcome.PASS], "1 proof: 1 passed in 2.0 s\n"),
        (list(Outcome), "4 proofs: 1 passed, 1 failed, 1 inconclusive, 1 in error in 2.0 s\n"),
        ([Outcome.FAIL] * 3, "3 proofs: 3 failed in 2.0 s\n"),
    ],
)
def test_summary_counts_verdicts(outcomes: list[Outcome], line: str) -> None:
    assert print_events(RunFinished(tuple(outcomes), 2_000 * MS)) == line


# ## Diagnostics


def render_problems(text: str) -> str:
    file = parse_file(text, "x.proof")
    return str(render_diagnostics(file.path, file.text, check_file(file)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("let a = b", "1  | let a = b\n   |         ^\n"),
        ("let a = b\r\n", "1  | let a = b\n   |         ^\n"),
        ("\n" * 9 + "let a = b", "10  | let a = b\n    |         ^\n"),
        ('let a = "日本" + b', '1  | let a = "日本" + b\n   |                  ^\n'),
        ('let a = b + "日本"\n', '1  | let a = b + "日本"\n   |         ^\n'),
        ("\f\nlet a = b", "2  | let a = b\n   |         ^\n"),
        ("# \u2028\x85\nlet a = b", "2  | let a = b\n   |         ^\n"),
        ('proof "p" {', '1  | proof "p" {\n   |           ^\n'),
        ("proof", "1  | proof\n   |      ^\n"),
    ],
)
def test_caret_marks_error_position(text: str, shown: str) -> None:
    assert shown in render_problems(text)


def test_caret_is_aligned_after_tab() -> None:
    line, caret = render_problems("\tlet a =\tb").splitlines()[3:5]
    assert line.index("b") == caret.index("^")


# ## The waterfall


def test_bars_stay_within_trace() -> None:
    spans = (
        SpanView("01", "a", "x", "server", 0, 100, False, False, False, ()),
        SpanView("02", "b", "ends before it starts", "server", 50, -20, False, False, False, (False,)),
        SpanView("03", "c", "instant", "server", 100, 0, False, False, False, (True,)),
    )
    lines = render_trace(TraceView("0" * 32, 0, 100, spans, 0)).plain.splitlines()
    bars = [next(part for part in line.split() if set(part) <= set("·█")) for line in lines]
    assert {len(bar) for bar in bars} == {26}
    assert [bar.count("█") for bar in bars] == [26, 1, 1]


def test_trace_without_duration_is_drawn() -> None:
    span = SpanView("01", "a", "x", "server", 5, 0, False, False, False, ())
    assert "█" in render_trace(TraceView("0" * 32, 5, 0, (span,), 0)).plain


def test_long_names_are_truncated() -> None:
    span = SpanView("01", "s" * 90, "o" * 90, "server", 0, 5, False, False, False, ())
    (line,) = render_trace(TraceView("0" * 32, 0, 5, (span,), 0)).plain.splitlines()
    assert f" {'s' * 40} {'o' * 32} █" in line


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, "0 µs"), (1, "0.001 µs"), (1_500, "1.5 µs"), (36_200_000, "36.2 ms"), (612_400_000, "612 ms"),
        (1_234_000_000, "1.23 s"), (-36_200_000, "-36.2 ms"),
        (999_999, "1 ms"), (1_234_567_000_000, "1235 s"), (999_999_999, "1 s"),
    ],
)  # fmt: skip
def test_durations_have_three_digits(ns: int, shown: str) -> None:
    assert format_short_duration(ns) == shown


# ## Consoles


def test_brackets_are_not_markup() -> None:
    text = 'proof "p [bold]" {\n  when GET "http://x/"\n  expect no span[name == "[red]x[/red]"]\n}\n'
    file = parse_file(text, "[x].proof")
    shown = print_events(finish(file, Verdict(Outcome.PASS, "pass", "[/] none", s.TextRange(0, 1), "")))
    assert "PASS  [x].proof::p [bold]   1 passed" in shown
    assert '✓ no span[name == "[red]x[/red]"]   [/] none' in shown


def test_long_lines_are_not_wrapped(file: ParsedFile) -> None:
    shown = print_events(finish(file, replace(passed(), reason="r" * 300)), width=40)
    assert f"  ✓ path gateway -> payments   {'r' * 300}\n" in shown


def test_live_line_needs_terminal(file: ParsedFile) -> None:
    (proof,) = file.items
    assert isinstance(proof, s.Proof)
    assert print_events(ProofStarted(file, proof), WaitingForSpans(proof, ("spans",), 2)) == ""


def test_live_line_shows_awaited_spans(file: ParsedFile) -> None:
    (proof,) = file.items
    assert isinstance(proof, s.Proof)
    shown = print_events(
        ProofStarted(file, proof), WaitingForSpans(proof, ("`a` called `b`",), 2), finish(file, passed()), terminal=True
    )
    assert "2 claims open, waiting for: `a` called `b`" in shown
    assert "PASS  checks" in shown


def test_live_line_counts_running_proofs(file: ParsedFile) -> None:
    (proof,) = file.items
    assert isinstance(proof, s.Proof)
    other = replace(proof)
    shown = print_events(
        ProofStarted(file, proof), ProofStarted(file, other), WaitingForSpans(proof, (), 1), finish(file, passed()),
        WaitingForSpans(other, (), 2), terminal=True,
    )  # fmt: skip
    assert "1 claim open, waiting for: quiet (1 more running)" in shown
    assert "2 claims open, waiting for: quiet (" not in shown


def test_colours_need_terminal_and_respect_no_color(file: ParsedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    event = finish(file, failed(), view=TRACE)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31mFAIL" in print_events(event, terminal=True, color=True)
    assert "\x1b" not in print_events(event)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = print_events(event, terminal=True, color=True)
    assert "\x1b[31m" not in plain
    assert "1;31m" not in plain
