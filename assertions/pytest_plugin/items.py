"""Proofs as pytest items, and their files as pytest collectors."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.pytest_plugin.collector import Collector
from spanproof.assertions.pytest_plugin.rendering import FailureLocation, RenderedFailure
from spanproof.assertions.reports.documents import ProofDocument, describe_proof
from spanproof.assertions.reports.outcome_text import rank_not_passed
from spanproof.assertions.reports.terminal import render_diagnostics, render_proof
from spanproof.assertions.run.events import ProofFinished, RunEvent
from spanproof.assertions.run.proof_files import format_path, read_module
from spanproof.assertions.run.proof_run import RunSettings
from spanproof.assertions.run.runner import Runner
from spanproof.query_lang.load.modules import ProofModule
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import locate_offset


class ProofFailed(Exception):
    """A proof did not pass; ``proof`` contains the verdicts."""

    def __init__(self, proof: ProofDocument) -> None:
        super().__init__(summarize_failure(proof))
        self.proof = proof


class UnreadableProofFile(Exception):
    """A proof file cannot be run; the message gives the reason, ``module`` the diagnostics if the file was read."""

    def __init__(self, message: str, module: ProofModule | None = None) -> None:
        super().__init__(message)
        self.module = module


class ProofFileNode(pytest.File):
    """A proof file."""

    def collect(self) -> Iterable[ProofItem]:
        """Yield the proofs of the file. Raises UnreadableProofFile."""
        try:
            module = read_module(self.path)
        except OSError as error:
            raise UnreadableProofFile(f"{self.path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UnreadableProofFile(f"{self.path}: not text in UTF-8, see byte {error.start}") from error
        if module.diagnostics:
            raise UnreadableProofFile(module.diagnostics[0].message, module)
        for proof in module.proofs:
            yield ProofItem.from_proof(self, module, proof)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]  # as pytest's
        """Show diagnostics as the command line does."""
        error = excinfo.value
        if not isinstance(error, UnreadableProofFile):
            return super().repr_failure(excinfo)
        if error.module is None:
            return str(error)
        file, diagnostics = error.module.file, error.module.diagnostics
        location = FailureLocation(file.path, locate_offset(file.text, diagnostics[0].at.start).line, str(error))
        return RenderedFailure(render_diagnostics(file.path, file.text, diagnostics), location)


class ProofItem(pytest.Function):
    """A proof. It is a function of the pytest collector, so that it has fixtures, including autouse fixtures."""

    line: int

    @classmethod
    def from_proof(cls, parent: ProofFileNode, module: ProofModule, proof: s.Proof) -> ProofItem:
        """Return the item of a proof; its tags become marks."""
        item = cls.from_parent(parent, name=make_item_name(proof), callobj=_make_test_function(module, proof))
        item.line = locate_offset(module.file.text, proof.at.start).line
        for tag in proof.tags:
            parent.config.addinivalue_line("markers", f"{tag}: a tag of proofs")
            item.add_marker(tag)
        return item

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return the path, the line and the name of the proof."""
        return self.path, self.line - 1, self.name

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]  # as pytest's
        """Show the verdicts that did not pass as the command line does."""
        error = excinfo.value
        if not isinstance(error, ProofFailed):
            return super().repr_failure(excinfo)
        proof = error.proof
        location = FailureLocation(proof.path, _find_failed_line(proof), str(error))
        return RenderedFailure(render_failure(proof, self), location)


def make_item_name(proof: s.Proof) -> str:
    """Return a proof's name as part of a node id, without the reserved `::` and square brackets."""
    return " ".join(proof.name.replace("::", ":").translate(str.maketrans("[]", "()")).split())


def render_failure(proof: ProofDocument, item: pytest.Item) -> Text:
    """Render the verdicts of an item that did not pass, with the pytest command that runs it again."""
    return render_proof(proof, f"pytest {shlex.quote(f'{format_path(item.path)}::{get_name_in_file(item)}')}")


def get_name_in_file(item: pytest.Item) -> str:
    """Return the name of an item within its file."""
    return item.nodeid.partition("::")[2]


def summarize_failure(proof: ProofDocument) -> str:
    """Return in one line why a proof did not pass: the reason of its worst verdict, or its error."""
    if proof.error is not None:
        return f"error: {proof.error}"
    first = rank_not_passed(proof.verdicts)[0]
    return first.reason if proof.outcome is Outcome.FAIL else f"{proof.outcome}: {first.reason}"


def _find_failed_line(proof: ProofDocument) -> int:
    return next((each.position.line for each in rank_not_passed(proof.verdicts)), proof.line)


def _make_test_function(module: ProofModule, proof: s.Proof) -> Callable[[Collector], None]:
    def run_proof(_spanproof_collector: Collector) -> None:
        finished: list[ProofFinished] = []

        def collect(event: RunEvent) -> None:
            if isinstance(event, ProofFinished):
                finished.append(event)

        collector = _spanproof_collector
        settings = collector.settings
        run_settings = RunSettings(settings.variables, collector.run_id, secrets=settings.secrets)
        Runner(collector.store, collect, run_settings).run([(module, proof)])
        if finished[0].outcome is not Outcome.PASS:
            raise ProofFailed(describe_proof(finished[0]))

    return run_proof
