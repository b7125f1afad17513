"""A run in the terminal: verdicts as they fall, failures with their place in the text and their trace."""

from __future__ import annotations

import shlex
from collections import Counter

from rich.cells import cell_len
from rich.console import Console
from rich.status import Status
from rich.text import Text

from spanproof.assertions.events import (
    Event,
    Judged,
    ProofFinished,
    ProofStarted,
    RunFinished,
    Sending,
    Waiting,
)
from spanproof.assertions.evidence import SpanView, TraceView
from spanproof.assertions.verdict import Outcome
from spanproof.query_lang.diagnostics import Diagnostic, locate
from spanproof.query_lang.syntax import Source

STYLES = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.INCONCLUSIVE: "yellow", Outcome.ERROR: "magenta"}
SIGNS = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.INCONCLUSIVE: "?", Outcome.ERROR: "!"}
BAR = 26


class TerminalReport:
    """Prints events to a console. Nothing is printed twice; a live line says what is waited for."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.status: Status | None = None

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        match event:
            case ProofStarted():
                self._say(f"{event.proof.name}: sending the request")
            case Sending():
                self._say(f"{event.proof.name}: {event.done} of {event.total} requests answered")
            case Waiting():
                awaited = event.missing[0] if event.missing else "quiet"
                self._say(f"{event.proof.name}: {event.open_claims} claims open, waiting for: {awaited}")
            case ProofFinished():
                self._hush()
                self.console.print(render_proof(event))
            case RunFinished():
                self._hush()
                self.console.print(render_summary(event))
            case Judged():
                pass

    def _say(self, line: str) -> None:
        """Show a live line, where there is a terminal to show it on."""
        if not self.console.is_terminal:
            return
        text = Text(line, no_wrap=True, overflow="ellipsis")
        if self.status is None:
            self.status = self.console.status(text)
            self.status.start()
        self.status.update(text)

    def _hush(self) -> None:
        if self.status is not None:
            self.status.stop()
            self.status = None


def render_proof(event: ProofFinished) -> Text:
    """Render a proof with its claims; what did not pass is explained below."""
    outcomes = Counter(each.verdict.outcome for each in event.judged)
    text = Text()
    text.append(f"{event.outcome.upper():<5}", style=f"bold {STYLES[event.outcome]}")
    text.append(f" {event.file.path}::{event.proof.name}", style="bold")
    counted = [
        f"{outcomes[outcome]} {word}"
        for outcome, word in (
            (Outcome.PASS, "passed"),
            (Outcome.FAIL, "failed"),
            (Outcome.INCONCLUSIVE, "inconclusive"),
            (Outcome.ERROR, "in error"),
        )
        if outcomes[outcome]
    ]
    text.append(f"   {', '.join([*counted, show_seconds(event.duration_ns)])}\n", style="dim")
    for each in event.judged:
        verdict = each.verdict
        text.append(f"  {SIGNS[verdict.outcome]} ", style=STYLES[verdict.outcome])
        text.append(" ".join(each.file.text[each.expectation.at.start : each.expectation.at.end].split()))
        text.append(f"   {verdict.reason}\n", style="dim")
    if event.error is not None:
        text.append(f"  ! {event.error}\n", style=STYLES[Outcome.ERROR])
    for note in event.notes:
        text.append(f"  · {note}\n", style="dim")
    for each in event.judged:
        if each.verdict.outcome is not Outcome.PASS:
            text.append("\n")
            text.append_text(_render_failure(each))
    if event.view is not None:
        text.append(f"   = trace {event.view.trace_id}", style="cyan")
        text.append(f", {show_short(event.view.duration_ns)}\n", style="dim")
        text.append_text(render_trace(event.view))
    if event.outcome is not Outcome.PASS:
        rerun = f"spanproof run {shlex.quote(event.file.path)} -k {shlex.quote(event.proof.name)}"
        text.append(f"   = rerun: {rerun}\n", style="dim")
    return text


def _render_failure(judged: Judged) -> Text:
    verdict = judged.verdict
    word = {Outcome.FAIL: "error", Outcome.INCONCLUSIVE: "inconclusive", Outcome.ERROR: "broken"}[verdict.outcome]
    return _render_place(
        judged.file.path, judged.file.text, f"{word}[{verdict.id}]", verdict.reason, verdict.at, verdict.mark,
        verdict.help, STYLES[verdict.outcome],
    )  # fmt: skip


def render_diagnostics(path: str, text: str, diagnostics: tuple[Diagnostic, ...]) -> Text:
    """Render the problems of a file, each with its line."""
    rendered = Text()
    for each in diagnostics:
        style = STYLES[Outcome.FAIL if each.severity == "error" else Outcome.INCONCLUSIVE]
        title = f"{each.severity}[{each.id}]"
        rendered.append_text(_render_place(path, text, title, each.message, each.at, "", each.help, style))
    return rendered


def _render_place(
    path: str, source: str, title: str, message: str, at: Source, mark: str, help_: str | None, style: str
) -> Text:
    """Render a message with its line of the text, a caret under what it speaks of, and a help line."""
    position = locate(source, min(at.start, len(source)))
    lines = source.split("\n")  # as `locate` counts them
    line = lines[position.line - 1].rstrip("\r")
    width = max(1, min(at.end - at.start, len(line) - position.column + 1))
    gutter = " " * len(str(position.line))
    text = Text()
    text.append(title, style=f"bold {style}")
    text.append(f": {message}\n", style="bold")
    text.append(f"{gutter} --> {path}:{position.line}:{position.column}\n", style="dim")
    text.append(f"{gutter}  |\n", style="dim")
    text.append(f"{position.line}  | ", style="dim")
    text.append(f"{line}\n")
    text.append(f"{gutter}  | ", style="dim")
    seen = line[: position.column - 1]
    indent = "".join("\t" if character == "\t" else " " * cell_len(character) for character in seen)
    width = max(1, cell_len(line[len(seen) : len(seen) + width]))
    text.append(f"{indent}{'^' * width} {mark}".rstrip() + "\n", style=style)
    if help_:
        text.append(f"{gutter}  = ", style="dim")
        text.append(f"help: {help_}\n")
    return text


def render_trace(view: TraceView) -> Text:
    """Render a waterfall: a line for each span, its bar where it stands in the trace."""
    names = [_branch(span) + span.service for span in view.spans]
    wide = min(max((len(name) for name in names), default=0), 40)
    operations = min(max((len(span.name) for span in view.spans), default=0), 32)
    text = Text()
    for name, span in zip(names, view.spans, strict=True):
        style = "red" if span.error else "bold" if span.marked else ""
        text.append("   !! " if span.marked else "      ", style="bold red")
        text.append(f"{name[:40]:<{wide}} {span.name[:32]:<{operations}} ", style=style)
        text.append(_bar(span, view), style="red" if span.error else "blue")
        text.append(f" {show_short(span.duration_ns):>8}", style=style)
        text.append(" error" if span.error else "", style="red")
        text.append(" (its parent is missing)\n" if span.orphan else "\n", style="dim")
    if view.hidden:
        text.append(f"      {view.hidden} spans inside services are not shown\n", style="dim")
    return text


def _branch(span: SpanView) -> str:
    if not span.last_at:
        return ""
    *above, last = span.last_at
    return "".join("  " if done else "│ " for done in above) + ("└ " if last else "├ ")


def _bar(span: SpanView, view: TraceView) -> str:
    total = max(view.duration_ns, 1)
    start = min(BAR - 1, (span.start_ns - view.start_ns) * BAR // total)
    length = max(1, min(BAR - start, -(-max(span.duration_ns, 0) * BAR // total)))
    return "·" * start + "█" * length + "·" * (BAR - start - length)


def render_summary(event: RunFinished) -> Text:
    """Render the closing line: how many proofs got which verdict."""
    counts = Counter(event.outcomes)
    words = {
        Outcome.PASS: "passed",
        Outcome.FAIL: "failed",
        Outcome.INCONCLUSIVE: "inconclusive",
        Outcome.ERROR: "in error",
    }
    text = Text(f"\n{len(event.outcomes)} proofs: ")
    parts = [(outcome, f"{counts[outcome]} {word}") for outcome, word in words.items() if counts[outcome]]
    for number, (outcome, part) in enumerate(parts):
        text.append(", " if number else "")
        text.append(part, style=f"bold {STYLES[outcome]}")
    text.append(f" in {show_seconds(event.duration_ns)}", style="dim")
    return text


def show_short(ns: int) -> str:
    """Return a duration for reading at a glance, to three digits; verdicts print exact ones."""
    size = abs(ns)
    if size >= 999_500_000_000:
        return f"{ns / 1e9:.0f} s"
    if size >= 999_500_000:
        return f"{ns / 1e9:.3g} s"
    if size >= 999_500:
        return f"{ns / 1e6:.3g} ms"
    return f"{ns / 1e3:.3g} µs"


def show_seconds(ns: int) -> str:
    """Return how long something took, in seconds."""
    return f"{ns / 1e9:.1f} s"
