"""Verdicts, proofs and runs as documents: what is stored, sent and written of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spanproof.assertions.explain.source_excerpts import ExcerptLine, extract_excerpt
from spanproof.assertions.explain.trace_evidence import TraceView
from spanproof.assertions.findings.verdict import Mark, Outcome, Witness
from spanproof.assertions.run.events import ClaimJudged, ProofFinished, Wait
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import locate_offset


class ClaimKind(StrEnum):
    """What a claim is about."""

    PATH = "path"
    LATENCY = "latency"
    ERROR_RATE = "error rate"
    CONTRACT = "contract"
    RESILIENCE = "resilience"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class SourceRange:
    """A stretch of text, lines and columns counted from 1; the end is behind its last letter."""

    path: str
    line: int
    column: int
    end_line: int
    end_column: int


# What has a default below is missing in runs that an older spanproof has stored.


@dataclass(frozen=True, slots=True)
class VerdictDocument:
    """A judged claim. ``id`` names the kind of finding, ``kind`` what the claim is about.

    ``follows_from`` is the place, among the verdicts of the proof from 0, of the one that it is a consequence of.
    """

    claim: str
    outcome: Outcome
    id: str
    kind: ClaimKind
    reason: str
    observed: str | None
    n: int
    witnesses: tuple[Witness, ...]
    help: str | None
    position: SourceRange
    excerpt: tuple[ExcerptLine, ...] = ()
    follows_from: int | None = None


@dataclass(frozen=True, slots=True)
class TryDocument:
    """An earlier try of a proof, which did not pass."""

    outcome: Outcome
    duration_ns: int
    error: str | None
    verdicts: tuple[VerdictDocument, ...]
    trace: TraceView | None
    waits: tuple[Wait, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProofDocument:
    """A proof that was carried out. ``trace`` shows what did not pass, where there is one.

    It is ``flaky`` if it passed, but not at once; ``tries`` are what came before. ``waits`` says how its spans were
    waited for, ``line`` where it begins in its file. ``notes`` say what is worth knowing of how it was carried out.
    """

    name: str
    path: str
    tags: tuple[str, ...]
    outcome: Outcome
    duration_ns: int
    error: str | None
    verdicts: tuple[VerdictDocument, ...]
    trace: TraceView | None
    line: int = 1
    flaky: bool = False
    tries: tuple[TryDocument, ...] = ()
    waits: tuple[Wait, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunDocument:
    """A run: ``outcome`` and ``ended_ns`` are missing while it goes on. Times are Unix nanoseconds."""

    id: str
    origin: str
    started_ns: int
    ended_ns: int | None
    outcome: Outcome | None
    proofs: tuple[ProofDocument, ...]


def describe_verdict(judged: ClaimJudged) -> VerdictDocument:
    """Make the document of a claim that was judged."""
    text, verdict, expectation = judged.file.text, judged.verdict, judged.expectation
    first, last = locate_offset(text, verdict.at.start), locate_offset(text, verdict.at.end)
    label = expectation.label.plain if expectation.label is not None else None
    claim = label or text[expectation.at.start : expectation.at.end]
    place = SourceRange(judged.file.path, first.line, first.column, last.line, last.column)
    return VerdictDocument(
        claim, verdict.outcome, verdict.id, _classify_claim(expectation.claim), verdict.reason, verdict.observed,
        verdict.n, verdict.witnesses, verdict.help, place,
        extract_excerpt(text, Mark(verdict.at, verdict.mark), verdict.marks), verdict.follows_from,
    )  # fmt: skip


def describe_proof(event: ProofFinished) -> ProofDocument:
    """Make the document of a proof that was carried out."""
    return ProofDocument(
        event.proof.name, event.file.path, tuple(event.proof.tags), event.outcome, event.duration_ns, event.error,
        _describe_verdicts(event), event.view, locate_offset(event.file.text, event.proof.at.start).line, event.flaky,
        tuple(_describe_try(each) for each in event.tries), event.waits, event.notes,
    )  # fmt: skip


def _describe_try(event: ProofFinished) -> TryDocument:
    return TryDocument(
        event.outcome, event.duration_ns, event.error, _describe_verdicts(event), event.view, event.waits, event.notes
    )


def _describe_verdicts(event: ProofFinished) -> tuple[VerdictDocument, ...]:
    return tuple(describe_verdict(each) for each in event.judged)


def _classify_claim(claim: s.Claim) -> ClaimKind:
    match claim:
        case s.Path() | s.Before():
            return ClaimKind.PATH
        case s.Retry() | s.NoRetry() | s.Fallback() | s.Circuit() | s.Timeout():
            return ClaimKind.RESILIENCE
        case s.Budget():
            return ClaimKind.LATENCY
        case s.Contract():
            return ClaimKind.CONTRACT
        case s.No(condition=None) | s.Some(condition=None):
            return ClaimKind.PATH
    functions = {part.name for part in s.walk(claim) if isinstance(part, s.Function)}
    names = {part.text for part in s.walk(claim) if isinstance(part, s.Name)}
    if "error_rate" in functions or "error" in names:
        return ClaimKind.ERROR_RATE
    if functions & {"duration", "self_time", "network", "lag", "critical"} or names & {"duration", "self_time"}:
        return ClaimKind.LATENCY
    if any(isinstance(part, s.Response) for part in s.walk(claim)):
        return ClaimKind.CONTRACT
    return ClaimKind.OTHER
