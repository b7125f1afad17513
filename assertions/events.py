"""What happens in a run, as it happens. Every report is made from this one stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from spanproof.assertions.evidence import TraceView
from spanproof.assertions.verdict import Outcome, Verdict
from spanproof.query_lang import syntax as s
from spanproof.query_lang.parse import ProofFile


@dataclass(frozen=True, slots=True)
class ProofStarted:
    """A proof is about to be carried out."""

    file: ProofFile
    proof: s.Proof


@dataclass(frozen=True, slots=True)
class Sending:
    """A request is repeated: of `total`, so many are ``done``."""

    proof: s.Proof
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The request was answered; spans are awaited. ``missing`` says which, ``open_claims`` how many need them."""

    proof: s.Proof
    missing: tuple[str, ...]
    open_claims: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with its verdict, and the file that its positions belong to."""

    file: ProofFile
    expectation: s.Expectation
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ProofFinished:
    """All claims of a proof are judged. ``view`` is the trace that shows what failed, where there is one.

    ``notes`` say what is worth knowing of how it was carried out.
    """

    file: ProofFile
    proof: s.Proof
    outcome: Outcome
    judged: tuple[Judged, ...]
    view: TraceView | None
    duration_ns: int
    error: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over."""

    outcomes: tuple[Outcome, ...]
    duration_ns: int


Event: TypeAlias = ProofStarted | Sending | Waiting | Judged | ProofFinished | RunFinished
