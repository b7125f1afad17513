"""Documents of verdicts, proofs and runs, as they are stored, sent and written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spanproof.assertions.explain.likely_cause import LikelyCause
from spanproof.assertions.explain.source_excerpts import ExcerptLine, extract_excerpt
from spanproof.assertions.explain.trace_evidence import TraceView
from spanproof.assertions.findings.verdict import Mark, Outcome, Witness
from spanproof.assertions.run.events import ClaimJudged, ProofFinished, Wait
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import locate_offset


class ClaimKind(StrEnum):
    """The subject of a claim."""

    PATH = "path"
    LATENCY = "latency"
    ERROR_RATE = "error rate"
    CONTRACT = "contract"
    RESILIENCE = "resilience"
    OTHER = "other"


@dataclass(frozen=True)
class SourceRange:
    """A range of text; lines and columns count from 1, and the end is after the last character."""

    path: str
    line: int
    column: int
    end_line: int
    end_column: int


# Fields with a default are missing in runs that an older version has stored.


@dataclass(frozen=True)
class EstimateDocument:
    """An estimate of one group: of ``n`` values, and of those of the baseline. Durations are in nanoseconds.

    ``key`` has the fields that define the group. The baseline is missing where the claim is not about it. ``text`` has
    the group and both values.
    """

    key: dict[str, str | None]
    outcome: Outcome
    n: int
    value: float
    baseline_n: int | None
    baseline_value: float | None
    text: str


@dataclass(frozen=True)
class VerdictDocument:
    """A judged claim. ``id`` names the kind of finding, ``kind`` the subject of the claim.

    ``follows_from`` is the index from 0, among the verdicts of the proof, of the verdict that caused this one.
    ``groups`` are the estimates of a claim about groups, the furthest from its limit or baseline first.
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
    groups: tuple[EstimateDocument, ...] = ()


@dataclass(frozen=True)
class TryDocument:
    """An earlier try of a proof; it did not pass."""

    outcome: Outcome
    duration_ns: int
    error: str | None
    verdicts: tuple[VerdictDocument, ...]
    trace: TraceView | None
    waits: tuple[Wait, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ProofDocument:
    """The result of a proof. ``trace`` shows the claims that did not pass, if there is one.

    A proof is ``flaky`` if it passed, but not at the first try; ``tries`` are the earlier tries. ``waits`` lists the
    periods of waiting for spans, ``line`` is its first line in the file. ``notes`` are remarks about the execution.
    ``likely_causes`` are the services in which a failure against the baseline arose, the largest effect first.
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
    likely_causes: tuple[LikelyCause, ...] = ()


@dataclass(frozen=True)
class RunDocument:
    """A run. ``outcome`` and ``ended_ns`` are missing while it is not finished. Times are Unix nanoseconds."""

    id: str
    origin: str
    started_ns: int
    ended_ns: int | None
    outcome: Outcome | None
    proofs: tuple[ProofDocument, ...]


def describe_verdict(judged: ClaimJudged) -> VerdictDocument:
    """Return the document of a judged claim."""
    text, verdict, expectation = judged.file.text, judged.verdict, judged.expectation
    first, last = locate_offset(text, verdict.at.start), locate_offset(text, verdict.at.end)
    label = expectation.label.plain if expectation.label is not None else None
    claim = label or text[expectation.at.start : expectation.at.end]
    position = SourceRange(judged.file.path, first.line, first.column, last.line, last.column)
    return VerdictDocument(
        claim, verdict.outcome, verdict.id, _classify_claim(expectation.claim), verdict.reason, verdict.observed,
        verdict.n, verdict.witnesses, verdict.help, position,
        extract_excerpt(text, Mark(verdict.at, verdict.mark), verdict.marks), verdict.follows_from,
        tuple(
            EstimateDocument(
                dict(each.key), each.outcome, each.n, each.value, each.baseline_n, each.baseline_value, each.text
            )
            for each in verdict.groups
        ),
    )  # fmt: skip


def describe_proof(event: ProofFinished) -> ProofDocument:
    """Return the document of a finished proof."""
    return ProofDocument(
        event.proof.name, event.file.path, tuple(event.proof.tags), event.outcome, event.duration_ns, event.error,
        _describe_verdicts(event), event.view, locate_offset(event.file.text, event.proof.at.start).line, event.flaky,
        tuple(_describe_try(each) for each in event.tries), event.waits, event.notes,
        event.likely_causes,
    )  # fmt: skip


def _describe_try(event: ProofFinished) -> TryDocument:
    return TryDocument(
        event.outcome, event.duration_ns, event.error, _describe_verdicts(event), event.view, event.waits, event.notes
    )


def _describe_verdicts(event: ProofFinished) -> tuple[VerdictDocument, ...]:
    return tuple(describe_verdict(each) for each in event.judged)


def _classify_claim(claim: s.Claim) -> ClaimKind:
    match claim:
        case s.IfThen(consequence=consequence):
            return _classify_claim(consequence)
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
