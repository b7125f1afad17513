"""The fixture ``traces``: claims about the traces that a test causes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal

import pytest

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.pytest_plugin.claims import find_call_site, read_claims
from spanproof.assertions.pytest_plugin.collector import Collector
from spanproof.assertions.pytest_plugin.in_process import activate_context
from spanproof.assertions.pytest_plugin.items import get_name_in_file, render_failure, summarize_failure
from spanproof.assertions.pytest_plugin.rendering import render_to_string
from spanproof.assertions.reports.documents import describe_proof
from spanproof.assertions.run.events import ProofFinished, RunEvent
from spanproof.assertions.run.proof_requests import SentRequests, register_trigger_spans
from spanproof.assertions.run.proof_run import ProofRun, RunSettings
from spanproof.assertions.run.secret_masking import mask_event
from spanproof.assertions.triggers.context import TraceContext
from spanproof.query_lang.check.definitions import Definitions
from spanproof.query_lang.load.modules import ProofModule
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.literals import read_duration_ns


class Traces:
    """The trace that a test starts, and related traces.

    Example:
        >>> def test_checkout(traces):
        ...     httpx.post(f"{base}/checkout", headers=traces.headers)
        ...     traces.expect("path gateway -> orders", "no retry orders -> payments")

    """

    def __init__(self, collector: Collector, node: pytest.Item) -> None:
        self._collector = collector
        self._node = node
        self._context = TraceContext(collector.run_id)
        self._sent = SentRequests((self._context,), last_span_key=collector.store.last_span_key)
        register_trigger_spans(collector.store, self._sent.contexts)

    @property
    def trace_id(self) -> str:
        """The trace's id, in hexadecimal."""
        return self._context.trace_id

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that make a request part of the test, for clients that are not instrumented."""
        return self._context.headers

    @property
    def environment(self) -> Mapping[str, str]:
        """The same values as environment variables for commands."""
        return {name.upper(): value for name, value in self.headers.items()}

    def expect(self, claim: str, /, *more: str, within: str = "15s", quiet: str | None = None) -> None:
        """Wait until claims are decided, as ``settle within … quiet …`` does. Raises AssertionError if one fails.

        Raises ClaimError for an invalid claim, and ValueError for an invalid duration.
        """
        __tracebackhide__ = True  # pytest shows the test, not this function
        limit_ns, quiet_ns = read_duration_ns(within), None if quiet is None else read_duration_ns(quiet)
        if limit_ns < 0 or (quiet_ns or 0) < 0:
            raise ValueError(f"within ({within}) and quiet ({quiet}) must not be negative")
        file, expectations = read_claims((claim, *more), find_call_site(sys._getframe(1)))
        empty_range = s.TextRange(expectations[0].at.start, expectations[0].at.start)
        pause = None if quiet_ns is None else s.Number(Decimal(quiet_ns), "ns", empty_range)
        settle = s.SettleStatement(s.Number(Decimal(limit_ns), "ns", empty_range), pause, empty_range)
        proof = s.Proof(get_name_in_file(self._node), (), (settle, *expectations), empty_range)
        self._collector.taps.flush()
        finished = self._judge_claims(ProofModule(file, Definitions(), ()), proof)
        if finished.outcome is not Outcome.PASS:
            document = describe_proof(finished)
            # pytest's summary shows only the first line
            raise AssertionError(
                f"{summarize_failure(document)}\n{render_to_string(render_failure(document, self._node)).rstrip()}"
            )

    def _judge_claims(self, module: ProofModule, proof: s.Proof) -> ProofFinished:
        finished: list[ProofFinished] = []
        secrets = self._collector.settings.secrets

        def collect(event: RunEvent) -> None:
            masked = mask_event(event, secrets)
            if isinstance(masked, ProofFinished):
                finished.append(masked)

        run_settings = RunSettings(run_id=self._collector.run_id, secrets=secrets)
        ProofRun(self._collector.store, collect, module, proof, run_settings, self._sent).execute()
        return finished[0]


@contextmanager
def open_traces(collector: Collector, node: pytest.Item) -> Iterator[Traces]:
    """Start a trace for a test; instrumented code of the test continues it."""
    if collector.taps.preexisting is not None:
        collector.receive_from(collector.taps.preexisting)
    traces = Traces(collector, node)
    with activate_context(traces._context):
        yield traces
