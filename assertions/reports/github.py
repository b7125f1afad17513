"""Report for GitHub Actions: annotations on the lines of proofs, and a step summary."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from spanproof.assertions.explain.text_formatting import format_count, format_seconds
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports.documents import ProofDocument, RunDocument, VerdictDocument
from spanproof.assertions.reports.outcome_text import (
    format_proof_counts,
    format_rerun_command,
    format_verdict_counts,
    list_further_groups,
    name_outcome,
    rank_not_passed,
)
from spanproof.assertions.reports.terminal import draw_marks

MAX_SUMMARY_BYTES: Final = 900_000  # GitHub accepts 1 MiB per step
STEP_SUMMARY: Final = "GITHUB_STEP_SUMMARY"
_SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "error": "💥", "flaky": "⚠️"}


def publish_report(run: RunDocument, echo: Callable[[str], None]) -> None:
    """Print annotations and append the summary to the file that the runner names. Raises OSError."""
    echo(render_annotations(run))
    if summary := os.environ.get(STEP_SUMMARY):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:  # earlier steps write to the same file
                file.write(render_step_summary(run))
        except OSError as error:
            raise OSError(error.errno, error.strerror, STEP_SUMMARY) from None


def render_annotations(run: RunDocument) -> str:
    """Render workflow commands: errors for failures and errors, warnings for inconclusive or flaky proofs."""
    return "".join(f"{line}\n" for proof in run.proofs for line in _annotate(proof))


def _annotate(proof: ProofDocument) -> Iterator[str]:
    level = "error" if proof.outcome in (Outcome.FAIL, Outcome.ERROR) else "warning"
    if proof.flaky:
        last = proof.tries[-1]
        reason = last.error or next((each.reason for each in rank_not_passed(last.verdicts)), "")
        yield _format_command(
            level, proof, f"flaky: it passed at try {len(proof.tries) + 1}; before: {reason}", proof.line
        )
    if proof.error is not None:
        yield _format_command(level, proof, proof.error, proof.line)
    for verdict in proof.verdicts:
        if verdict.outcome is not Outcome.PASS and verdict.follows_from is None:
            verdict_level = "error" if verdict.outcome in (Outcome.FAIL, Outcome.ERROR) else "warning"
            help_ = f"\nhelp: {verdict.help}" if verdict.help else ""
            at = verdict.position
            message = f"{verdict.reason}{help_}\nexpect {verdict.claim}"
            yield _format_command(verdict_level, proof, message, at.line, at.end_line, at.column, path=at.path)


def _format_command(
    level: str,
    proof: ProofDocument,
    message: str,
    line: int,
    end_line: int | None = None,
    column: int | None = None,
    *,
    path: str | None = None,
) -> str:
    properties = {"file": path or proof.path, "line": line, "endLine": end_line, "col": column, "title": proof.name}
    written = ",".join(
        f"{name}={_escape(str(value), property_=True)}" for name, value in properties.items() if value is not None
    )
    return f"::{level} {written}::{_escape(message)}"


def _escape(text: str, *, property_: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property_ else text


def render_step_summary(run: RunDocument) -> str:
    """Render a run in GitHub's Markdown: a table of proofs, then the details of those that did not pass."""
    flaky = sum(each.flaky for each in run.proofs)
    counts = ", ".join(part for _, part in format_proof_counts([each.outcome for each in run.proofs], flaky))
    lines = [f"## spanproof: {counts or 'no proofs'}", "", "| | proof | claims | time |", "| --- | --- | --- | ---: |"]
    for proof in run.proofs:
        name = f"{_escape_cell(proof.name)}<br><sub>{_escape_cell(proof.path)}:{proof.line}</sub>"
        claims = ", ".join(format_verdict_counts(proof.verdicts)) or _escape_cell(proof.error or "")
        sign = _SIGNS[name_outcome(proof)]
        lines.append(f"| {sign} {name_outcome(proof)} | {name} | {claims} | {format_seconds(proof.duration_ns)} |")
    not_passed = [proof for proof in run.proofs if proof.outcome is not Outcome.PASS or proof.flaky]
    size = sum(len(line.encode()) + 1 for line in lines)
    for number, proof in enumerate(not_passed):
        detail = "\n".join(["", *_render_detail(proof)])
        size += len(detail.encode()) + 1
        if size > MAX_SUMMARY_BYTES:
            lines += [
                "",
                f"{format_count(len(not_passed) - number, 'more proof')} did not pass; the other reports contain them.",
            ]
            break
        lines.append(detail)
    return "\n".join(lines) + "\n"


def _render_detail(proof: ProofDocument) -> Iterator[str]:
    shown = proof.tries[-1] if proof.flaky else proof
    yield f"### {_SIGNS[name_outcome(proof)]} {_escape_cell(proof.name)}"
    if proof.flaky:
        yield f"\nIt passed at try {len(proof.tries) + 1}. Before that:"
    yield "\n```text"
    if shown.error is not None:
        yield _escape_fence(shown.error)
    for verdict in shown.verdicts:
        if verdict.outcome is not Outcome.PASS:
            yield from map(_escape_fence, _render_verdict(verdict, shown.verdicts))
    for cause in proof.likely_causes:
        yield _escape_fence(f"likely cause: {cause.service}: {cause.reason}")
    yield "```"
    if shown.trace is not None:
        yield f"\nTrace `{shown.trace.trace_id}`"
    yield f"\nRun it again: `{format_rerun_command(proof).replace('`', '')}`"


def _render_verdict(verdict: VerdictDocument, verdicts: tuple[VerdictDocument, ...]) -> Iterator[str]:
    position = verdict.position
    yield f"{verdict.outcome}[{verdict.id}]: {verdict.reason}"
    if verdict.follows_from is not None:
        yield f"  a consequence of line {verdicts[verdict.follows_from].position.line}"
        return
    yield f"  --> {position.path}:{position.line}:{position.column}"
    for line in verdict.excerpt:
        yield f"{line.number:>4} | {line.text}"
        for row in draw_marks(line):
            yield f"     | {row}"
    if verdict.help:
        yield f"     = help: {verdict.help}"
    for group in list_further_groups(verdict):
        yield f"     = {group}"


def _escape_cell(text: str) -> str:
    """Return a text as the content of a table cell, with its markup escaped."""
    for letter in "\\`*_[]|~#":
        text = text.replace(letter, f"\\{letter}")
    return text.replace("<", "&lt;").replace("\n", " ")


def _escape_fence(line: str) -> str:
    """Return a line that cannot close the fenced code block around it."""
    return line.replace("```", "`\u200b``")
