"""Finds proofs and carries them out one after the other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spanproof.assertions.events import Event, ProofStarted, RunFinished
from spanproof.assertions.proof_run import ProofRun
from spanproof.assertions.verdict import Outcome
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.modules import Module, load_module


@dataclass(frozen=True, slots=True)
class Selection:
    """Which proofs to run: a word in the name (``keyword``) and any of the ``tags``."""

    keyword: str | None = None
    tags: frozenset[str] = frozenset()

    def takes(self, proof: s.Proof) -> bool:
        """Tell whether a proof is selected."""
        if self.keyword is not None and self.keyword.lower() not in proof.name.lower():
            return False
        return not self.tags or bool(self.tags & set(proof.tags))


def find_files(paths: list[Path]) -> list[Path]:
    """Return the proof files that `paths` name, those in folders in order. Raises FileNotFoundError."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(sorted(path.rglob("*.proof")))
        elif path.exists():
            found[path] = None
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return list(found)


def read_module(path: Path) -> Module:
    """Read and check a proof file, which reports name from here. Raises OSError, UnicodeDecodeError."""
    here = Path.cwd()
    shown = path.resolve().relative_to(here) if path.resolve().is_relative_to(here) else path
    return load_module(path, str(shown))


@dataclass(slots=True)
class Runner:
    """Runs proofs against a store that a receiver fills; tells `emit` what happens."""

    store: Store
    emit: Callable[[Event], None]
    variables: Mapping[str, str] = field(default_factory=dict)
    fail_fast: bool = False
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def run(self, proofs: list[tuple[Module, s.Proof]]) -> tuple[Outcome, ...]:
        """Carry out the proofs; return their outcomes."""
        started = time.perf_counter_ns()
        outcomes: list[Outcome] = []
        for module, proof in proofs:
            self.emit(ProofStarted(module.file, proof))
            outcome = ProofRun(self.store, self.emit, module, proof, self.variables, self.run_id).carry_out()
            outcomes.append(outcome)
            if self.fail_fast and outcome is not Outcome.PASS:
                break
        self.emit(RunFinished(tuple(outcomes), time.perf_counter_ns() - started))
        return tuple(outcomes)
