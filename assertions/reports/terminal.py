"""Terminal report: verdicts as they are reached, failures with their source excerpt and trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from spanproof.assertions.explain.source_excerpts import ExcerptLine, extract_excerpt
from spanproof.assertions.explain.text_formatting import (
    format_count,
    format_seconds,
    format_short_duration,
    format_span_duration,
)
from spanproof.assertions.explain.trace_evidence import SpanView, TraceView
from spanproof.assertions.findings.verdict import Mark, Outcome
from spanproof.assertions.reports.documents import ProofDocument, TryDocument, VerdictDocument, describe_proof
from spanproof.assertions.reports.outcome_text import (
    FLAKY,
    format_proof_counts,
    format_rerun_command,
    format_verdict_counts,
    list_further_groups,
    name_outcome,
)
from spanproof.assertions.run.events import (
    ClaimJudged,
    ProofFinished,
    ProofStarted,
    RequestProgress,
    RunEvent,
    RunFinished,
    WaitingForSpans,
)
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic

if TYPE_CHECKING:
    from rich.status import Status

OUTCOME_STYLES: Final[dict[str, str]] = {
    Outcome.PASS: "green",
    Outcome.FAIL: "red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.ERROR: "magenta",
    FLAKY: "yellow",
}
OUTCOME_SIGNS: Final = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.INCONCLUSIVE: "?", Outcome.ERROR: "!"}
BAR_WIDTH: Final = 26


class TerminalReport:
    """Printer of events to a console. It prints each result once; a live line shows the awaited spans.

    Without `can_rerun`, it prints no command that runs a proof again.
    """

    def __init__(self, console: Console, *, can_rerun: bool = True) -> None:
        self.console = console
        self.can_rerun = can_rerun
        self.status: Status | None = None
        self.status_by_proof: dict[int, str] = {}  # by identity of running proofs, because names may be equal

    def __call__(self, event: RunEvent) -> None:
        """Process an event."""
        match event:
            case ProofStarted():
                self._show_status(event.proof, "sending the request")
            case RequestProgress():
                self._show_status(event.proof, f"{event.done} of {event.total} requests answered")
            case WaitingForSpans():
                awaited = event.missing[0] if event.missing else "quiet"
                self._show_status(
                    event.proof, f"{format_count(event.open_claims, 'claim')} open, waiting for: {awaited}"
                )
            case ProofFinished():
                self.status_by_proof.pop(id(event.proof), None)
                self._clear_status()
                proof = describe_proof(event)
                self.console.print(render_proof(proof, format_rerun_command(proof) if self.can_rerun else None))
            case RunFinished():
                self._clear_status()
                self.console.print(render_summary(event))
            case ClaimJudged():
                pass

    def close(self) -> None:
        """Remove the live line."""
        self._clear_status()

    def _show_status(self, proof: s.Proof, activity: str) -> None:
        """Show a live line if the console is a terminal."""
        if not self.console.is_terminal:
            return
        self.status_by_proof[id(proof)] = activity
        others = f" ({len(self.status_by_proof) - 1} more running)" if len(self.status_by_proof) > 1 else ""
        text = Text(f"{proof.name}: {activity}{others}", no_wrap=True, overflow="ellipsis")
        if self.status is None:
            self.status = self.console.status(text)
            self.status.start()
        self.status.update(text)

    def _clear_status(self) -> None:
        if self.status is not None:
            self.status.stop()
            self.status = None


def render_proof(proof: ProofDocument, rerun_command: str | None) -> Text:
    """Render a proof with its claims, then the claims that did not pass with their explanations.

    `rerun_command` runs the proof again; None prints no command.
    """
    text = Text()
    text.append(f"{name_outcome(proof).upper():<5}", style=f"bold {OUTCOME_STYLES[name_outcome(proof)]}")
    text.append(f" {proof.path}::{proof.name}", style="bold")
    text.append(
        f"   {', '.join([*format_verdict_counts(proof.verdicts), format_seconds(proof.duration_ns)])}\n", style="dim"
    )
    _append_claims(text, proof)
    for number, each in enumerate(proof.tries, 1):
        text.append(f"\n  try {number} of {len(proof.tries) + 1}: ", style="dim")
        text.append(each.outcome, style=OUTCOME_STYLES[each.outcome])
        text.append(
            f"   {', '.join([*format_verdict_counts(each.verdicts), format_seconds(each.duration_ns)])}\n", style="dim"
        )
        _append_claims(text, each)
    shown = proof.tries[-1] if proof.flaky else proof  # a passing try has nothing to explain
    not_passed = [each for each in shown.verdicts if each.outcome is not Outcome.PASS]
    for verdict in sorted(not_passed, key=lambda each: each.follows_from is not None):
        text.append("\n")
        text.append_text(_render_failure(verdict, shown.verdicts))
    for number, cause in enumerate(proof.likely_causes):
        text.append("   = likely cause: " if not number else "     then: ", style="dim")
        text.append(cause.service, style="bold").append(f": {cause.reason}\n")
    if shown.trace is not None:
        text.append(f"   = trace {shown.trace.trace_id}", style="cyan")
        choice = f", {shown.trace.choice}" if shown.trace.choice else ""
        minimum = "at least " if shown.trace.has_unfinished else ""
        text.append(f", {minimum}{format_short_duration(shown.trace.duration_ns)}{choice}\n", style="dim")
        text.append_text(render_trace(shown.trace))
    if rerun_command is not None and (proof.outcome is not Outcome.PASS or proof.flaky):
        text.append(f"   = rerun: {rerun_command}\n", style="dim")
    return text


def _append_claims(text: Text, proof: ProofDocument | TryDocument) -> None:
    for verdict in proof.verdicts:
        text.append(f"  {OUTCOME_SIGNS[verdict.outcome]} ", style=OUTCOME_STYLES[verdict.outcome])
        text.append(" ".join(verdict.claim.split()))
        text.append(f"   {verdict.reason}\n", style="dim")
    if proof.error is not None:
        text.append(f"  ! {proof.error}\n", style=OUTCOME_STYLES[Outcome.ERROR])
    for note in proof.notes:
        text.append(f"  · {note}\n", style="dim")


def _render_failure(verdict: VerdictDocument, verdicts: tuple[VerdictDocument, ...]) -> Text:
    style = OUTCOME_STYLES[verdict.outcome]
    if verdict.follows_from is not None:
        cause = verdicts[verdict.follows_from]
        text = Text().append(f"{verdict.outcome}[{verdict.id}]", style=f"bold {style}")
        text.append(f": {verdict.reason}\n", style="bold")
        position = f"{verdict.position.path}:{verdict.position.line}:{verdict.position.column}"
        text.append(f"   --> {position}\n", style="dim")
        text.append(f"   = a consequence of line {cause.position.line}: {cause.reason}\n", style="dim")
        return text
    title = f"{verdict.outcome}[{verdict.id}]"
    text = _render_excerpt(verdict.position.path, verdict.excerpt, title, verdict.reason, verdict.help, style)
    for group in list_further_groups(verdict):
        text.append(f"   = {group}\n", style="dim")
    return text


def render_diagnostics(path: str, text: str, diagnostics: tuple[Diagnostic, ...]) -> Text:
    """Render the diagnostics of a file, each with its source line."""
    rendered = Text()
    for each in diagnostics:
        style = OUTCOME_STYLES[Outcome.FAIL if each.severity == "error" else Outcome.INCONCLUSIVE]
        title = f"{each.severity}[{each.id}]"
        excerpt = extract_excerpt(text, Mark(each.at, ""))
        rendered.append_text(_render_excerpt(path, excerpt, title, each.message, each.help, style))
    return rendered


def render_position(title: str, message: str, position: str, help_: str | None) -> Text:
    """Render a diagnostic whose source line is not known."""
    text = Text().append(title, style=f"bold {OUTCOME_STYLES[Outcome.FAIL]}").append(f": {message}\n", style="bold")
    text.append(f" --> {position}\n", style="dim")
    return text.append("  = ", style="dim").append(f"help: {help_}\n") if help_ else text


def _render_excerpt(
    path: str, excerpt: tuple[ExcerptLine, ...], title: str, message: str, help_: str | None, style: str
) -> Text:
    """Render a message with its source lines, carets under the marked parts, and a help line."""
    line, mark = next((line, mark) for line in excerpt for mark in line.marks if mark.primary)
    wide = max(len(str(each.number)) for each in excerpt)
    gutter = " " * wide
    text = Text()
    text.append(title, style=f"bold {style}")
    text.append(f": {message}\n", style="bold")
    text.append(f"{gutter} --> {path}:{line.number}:{mark.column}\n", style="dim")
    text.append(f"{gutter}  |\n", style="dim")
    for before, each in zip((None, *excerpt), excerpt, strict=False):
        if before is not None and each.number > before.number + 1:
            text.append("...\n", style="dim")
        text.append(f"{each.number:>{wide}}  | ", style="dim")
        text.append(f"{each.text}\n")
        for marks in draw_marks(each):
            text.append(f"{gutter}  | ", style="dim")
            text.append(f"{marks}\n", style=style)
    if help_:
        text.append(f"{gutter}  = ", style="dim")
        text.append(f"help: {help_}\n")
    return text


def draw_marks(line: ExcerptLine) -> list[str]:
    """Return the rows below a line: carets and dashes with the text of the last mark, then the texts of the others."""
    blank = _make_blank(line.text)
    drawn = list(blank)
    starts = {}
    for mark in sorted(line.marks, key=lambda each: each.primary):  # drawn last, over the others
        start = starts[mark] = len(_make_blank(line.text[: mark.column - 1]))
        width = max(1, len(_make_blank(line.text[mark.column - 1 : mark.column - 1 + mark.width])))
        drawn += " " * (start + width - len(drawn))
        drawn[start : start + width] = ("^" if mark.primary else "-") * width
    *others, last = line.marks
    rows = [f"{''.join(drawn).rstrip()} {last.text}".rstrip()]
    for number, mark in reversed(list(enumerate(others))):
        row = list(f"{blank:<{starts[mark]}}"[: starts[mark]])
        for above in others[:number]:
            row[starts[above]] = "|"
        rows += [f"{''.join(row)}{mark.text}"] if mark.text else []
    return rows


def _make_blank(text: str) -> str:
    """Return white space as wide as a text, with its tabs kept."""
    return "".join("\t" if letter == "\t" else " " * cell_len(letter) for letter in text)


def render_trace(view: TraceView) -> Text:
    """Render a waterfall: a line per span, with a bar at its position in the trace.

    A span that has not ended has an open bar from its start.
    """
    names = [_draw_branch(span) + span.service for span in view.spans]
    wide = min(max((len(name) for name in names), default=0), 40)
    operations = min(max((len(span.name) for span in view.spans), default=0), 32)
    durations = [format_span_duration(span.duration_ns) for span in view.spans]
    digits = max(8, *map(len, durations), 0)
    text = Text()
    for name, span, duration in zip(names, view.spans, durations, strict=True):
        style = "red" if span.error else "bold" if span.marked else ""
        text.append("   !! " if span.marked else "      ", style="bold red")
        text.append(f"{name[:40]:<{wide}} {span.name[:32]:<{operations}} ", style=style)
        text.append(_draw_bar(span, view), style="red" if span.error else "blue")
        text.append(f" {duration:>{digits}}", style=style)
        text.append(" error" if span.error else "", style="red")
        text.append(" (its parent is missing)\n" if span.orphan else "\n", style="dim")
    if view.hidden:
        verb = "is" if view.hidden == 1 else "are"
        text.append(f"      {format_count(view.hidden, 'span')} inside services {verb} not shown\n", style="dim")
    return text


def _draw_branch(span: SpanView) -> str:
    if not span.last_at:
        return ""
    *above, last = span.last_at
    return "".join("  " if done else "│ " for done in above) + ("└ " if last else "├ ")


def _draw_bar(span: SpanView, view: TraceView) -> str:
    total = max(view.duration_ns, 1)
    start = min(BAR_WIDTH - 1, (span.start_ns - view.start_ns) * BAR_WIDTH // total)
    if span.duration_ns is None:
        return "·" * start + "░" * (BAR_WIDTH - start)
    length = max(1, min(BAR_WIDTH - start, -(-max(span.duration_ns, 0) * BAR_WIDTH // total)))
    return "·" * start + "█" * length + "·" * (BAR_WIDTH - start - length)


def render_summary(event: RunFinished) -> Text:
    """Render the closing line: the number of proofs per outcome."""
    text = Text(f"{format_count(len(event.outcomes), 'proof')}: ")
    for number, (outcome, part) in enumerate(format_proof_counts(event.outcomes, event.flaky)):
        text.append(", " if number else "")
        text.append(part, style=f"bold {OUTCOME_STYLES[outcome]}")
    text.append(f" in {format_seconds(event.duration_ns)}", style="dim")
    return text
