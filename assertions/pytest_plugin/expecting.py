"""The fixture ``traces``: claims about what a test leads to."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal

import pytest

from spanproof.assertions.documents import describe_proof
from spanproof.assertions.events import Event, ProofFinished
from spanproof.assertions.masking import mask_event
from spanproof.assertions.proof_run import ProofRun, Terms
from spanproof.assertions.pytest_plugin.claims import find_call, read_claims
from spanproof.assertions.pytest_plugin.collector import Collector
from spanproof.assertions.pytest_plugin.in_process import make_current
from spanproof.assertions.pytest_plugin.items import name_within, render_failure, summarize
from spanproof.assertions.pytest_plugin.rendering import write_text
from spanproof.assertions.requests import Sent, expect_roots
from spanproof.assertions.triggers.context import TraceContext
from spanproof.assertions.verdict import Outcome
from spanproof.query_lang import syntax as s
from spanproof.query_lang.library import Library
from spanproof.query_lang.literals import read_duration_ns
from spanproof.query_lang.modules import Module


class Traces:
    """The trace that a test begins, and those that it leads to.

    Example:
        >>> def test_checkout(traces):
        ...     httpx.post(f"{base}/checkout", headers=traces.headers)
        ...     traces.expect("path gateway -> orders", "no retry orders -> payments")

    """

    def __init__(self, collector: Collector, node: pytest.Item) -> None:
        self._collector = collector
        self._node = node
        self._context = TraceContext(collector.run_id)
        self._sent = Sent((self._context,), last_key=collector.store.last_key)
        expect_roots(collector.store, self._sent.contexts)

    @property
    def trace_id(self) -> str:
        """The trace's id, in hexadecimal."""
        return self._context.trace_id

    @property
    def headers(self) -> Mapping[str, str]:
        """What a request has to bear to belong to the test, where its client is not instrumented."""
        return self._context.headers

    @property
    def environment(self) -> Mapping[str, str]:
        """The same for commands, as variables."""
        return {name.upper(): value for name, value in self.headers.items()}

    def expect(self, claim: str, /, *more: str, within: str = "15s", quiet: str | None = None) -> None:
        """Wait until claims are decided, as ``settle within … quiet …`` does. Raises AssertionError for what fails.

        Raises ClaimError for what is no claim, and ValueError for what is no duration.
        """
        __tracebackhide__ = True  # pytest shows the test, not us
        limit_ns, quiet_ns = read_duration_ns(within), None if quiet is None else read_duration_ns(quiet)
        if limit_ns < 0 or (quiet_ns or 0) < 0:
            raise ValueError(f"{within} and {quiet} are times to wait")
        file, expectations = read_claims((claim, *more), find_call(sys._getframe(1)))
        nowhere = s.Source(expectations[0].at.start, expectations[0].at.start)
        pause = None if quiet_ns is None else s.Number(Decimal(quiet_ns), "ns", nowhere)
        settle = s.Settle(s.Number(Decimal(limit_ns), "ns", nowhere), pause, nowhere)
        proof = s.Proof(name_within(self._node), (), (settle, *expectations), nowhere)
        self._collector.taps.flush()
        finished = self._judge(Module(file, Library(), ()), proof)
        if finished.outcome is not Outcome.PASS:
            document = describe_proof(finished)
            # pytest's summary has room for the first line
            raise AssertionError(f"{summarize(document)}\n{write_text(render_failure(document, self._node)).rstrip()}")

    def _judge(self, module: Module, proof: s.Proof) -> ProofFinished:
        finished: list[ProofFinished] = []
        secrets = self._collector.settings.secrets

        def take(event: Event) -> None:
            masked = mask_event(event, secrets)
            if isinstance(masked, ProofFinished):
                finished.append(masked)

        terms = Terms(run_id=self._collector.run_id, secrets=secrets)
        ProofRun(self._collector.store, take, module, proof, terms, self._sent).carry_out()
        return finished[0]


@contextmanager
def open_traces(collector: Collector, node: pytest.Item) -> Iterator[Traces]:
    """Begin a trace with a test; its code that is instrumented goes on with it."""
    if collector.taps.earlier is not None:
        collector.receive_from(collector.taps.earlier)
    traces = Traces(collector, node)
    with make_current(traces._context):
        yield traces
