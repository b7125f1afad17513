"""Runs clients against fault plans, and compares each verdict with the log of what happened."""

from __future__ import annotations

import http.client
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Final, Self
from urllib.parse import urlencode, urlsplit

from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.findings.verdict import Outcome as Verdict
from spanproof.assertions.judge.evaluate import Judge
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.completeness import check_completeness
from spanproof.query_lang.check.checker import check_claim
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.syntax.parser import ParsedFile, parse_claim
from spanproof.tests.field.arrivals import Request, RunLog
from spanproof.tests.field.broker import Broker, why_no_broker
from spanproof.tests.field.clients import Client, Web
from spanproof.tests.field.grpc_faults import GrpcFaults
from spanproof.tests.field.http_faults import FaultListener, FaultLoop
from spanproof.tests.field.limits import find_limit
from spanproof.tests.field.plans import GRPC, PLANS, QUEUE, Plan
from spanproof.tests.field.refusals import Refusals
from spanproof.tests.field.server_spans import ServerSpans
from spanproof.tests.field.truth import JudgedClaim, Names, Truth, list_claims

# Services that export spans, services that do not, and one that exports spans but never listens: a store learns which
# service answers at an address, so each has a host of its own.
HOSTS: Final = {
    ("inventory", True): "127.0.0.2",
    ("backup", True): "127.0.0.3",
    ("inventory", False): "127.0.0.4",
    ("backup", False): "127.0.0.5",
}
NEVER_LISTENS: Final = "127.0.0.6"
SETTLE_S: Final = 12.0
QUIET_NS: Final = 1_000_000_000
LONG_QUIET_NS: Final = 5_000_000_000  # where spans may be missing
PARALLEL_RUNS: Final = 3
_DELIVERIES_SQL: Final = "SELECT count(*) FROM spans WHERE trace_id = $trace::UUID AND kind = 5"  # CONSUMER


class Mark(Enum):
    """How a verdict compares with the truth."""

    RIGHT = "right"
    INCONCLUSIVE = "inconclusive"
    LIMIT = "known limit"
    WRONG_PASS = "WRONG PASS"  # noqa: S105 (no password)
    WRONG_FAIL = "WRONG FAIL"
    ERROR = "ERROR"


WRONG: Final = (Mark.WRONG_PASS, Mark.WRONG_FAIL, Mark.ERROR)


@dataclass(frozen=True, slots=True)
class Compared:
    """A verdict and the truth."""

    client: str
    plan: str
    traced: bool
    claim: JudgedClaim
    verdict: str
    reason: str
    mark: Mark
    trace_ids: tuple[str, ...]


@dataclass(slots=True)
class Run:
    """One client, one plan, with or without spans of the callee."""

    client: Client
    plan: Plan
    traced: bool
    log: RunLog = field(default_factory=RunLog)

    def find_host(self, service: str) -> str:
        is_refused = all(fault == "refused" for faults in self.plan.faults.values() for fault in faults)
        return NEVER_LISTENS if service == "inventory" and is_refused else HOSTS[service, self.traced]

    def name(self, service: str) -> str:
        """Return the name of a callee in claims: its service if one of its spans shows it, else its host."""
        arrived = any(attempt.fault != "refused" for attempt in self.log.list_attempts(service))
        return service if self.traced and arrived else f'"{self.find_host(service)}"'

    @property
    def names(self) -> Names:
        return Names(self.name("inventory"), self.name("backup"))


class Field:
    """The collector, the fault server and the clients; `compare` runs a client and judges it."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        self.store = enter(Store.open())
        receiver = enter(Receiver(self.store, "127.0.0.1:0", "127.0.0.1:0"))
        self.otlp_http = receiver.http_address
        self._spans = ServerSpans(self.otlp_http)
        self._stack.callback(self._spans.close)
        self.why_no_refusals = ""
        self._refusals: Refusals | None = None
        try:
            self._refusals = enter(Refusals())
        except PermissionError:
            self.why_no_refusals = "reading refused connections from the loopback interface needs root or CAP_NET_RAW"
        self._loop = enter(FaultLoop())
        self._webs: dict[tuple[str, ...], Web] = {}
        self.connection = enter(self.store.cursor())
        self._judge = Judge(self.connection)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        assert self._refusals is None or not self._refusals.dropped, "packets were dropped: the log is not complete"

    def why_not(self, client: Client, plan: Plan) -> str:
        """Return why a plan cannot run with a client; "" if it can."""
        if client.protocol not in plan.protocols:
            return f"does not apply to {client.protocol}"
        if client.protocol == QUEUE:
            return why_no_broker()
        refused = any("refused" in faults for faults in plan.faults.values())
        return self.why_no_refusals if refused else ""

    def run(self, client: Client, plans: Iterable[Plan], traced: Iterable[bool] = (True, False)) -> list[Run]:
        """Run the plans that apply to a client."""
        if client.protocol == QUEUE:
            traced = (True,)  # the spans of inventory are those of the worker
        runs = [Run(client, plan, each) for plan in plans for each in traced if not self.why_not(client, plan)]
        if not runs:
            return []
        web = self._find_web(client)
        self._run(web, Run(client, PLANS["ok"], traced=True))  # loads the code of the client; not judged
        with ThreadPoolExecutor(PARALLEL_RUNS) as pool:
            list(pool.map(lambda run: self._run(web, run), runs))
        return runs

    def judge(self, runs: Iterable[Run]) -> list[Compared]:
        """Wait until all traces are settled, and judge the claims about each run."""
        runs = list(runs)
        settled = self._settle({request.trace_id: run for run in runs for request in run.log.requests})
        return [compared for run in runs for compared in self._judge_run(run, settled)]

    def _find_web(self, client: Client) -> Web:
        if client.program not in self._webs:
            redis = ""
            if client.protocol == QUEUE:
                broker = Broker(self.otlp_http)
                self._stack.callback(broker.stop)
                redis = broker.url
            web = Web(client, self.otlp_http, redis)
            self._stack.callback(web.stop)
            self._webs[client.program] = web
        return self._webs[client.program]

    def _run(self, web: Web, run: Run) -> None:
        listeners = [self._listen(run, service) for service in ("inventory", "backup")]
        try:
            inventory, backup = (listener.url for listener in listeners)
            query = urlencode(
                {"client": run.client.name, "shape": run.plan.shape, "inventory": inventory, "backup": backup}
            )
            for step in run.plan.steps:
                if isinstance(step, float):
                    time.sleep(step)  # the plan's own pause
                else:
                    self._send(web, run.log, f"/run?{query}")
            if self._refusals is not None:
                self._refusals.flush()
            while run.log.unfinished:
                time.sleep(0.02)
        finally:
            for listener in listeners:
                if isinstance(listener, FaultListener):
                    self._loop.run(listener.close())
                else:
                    listener.close()

    def _listen(self, run: Run, service: str) -> FaultListener | GrpcFaults:
        faults = run.plan.faults if service == "inventory" else {"1": run.plan.backup}
        host = run.find_host(service)
        spans = self._spans if run.traced and run.client.protocol != QUEUE else None
        if run.client.protocol == GRPC:
            return GrpcFaults(run.log, service, faults, host, spans)
        return self._loop.make(lambda: FaultListener(run.log, service, faults, host, spans, self._refusals))

    def _send(self, web: Web, log: RunLog, path: str) -> None:
        """Send a request with a trace context of its own."""
        trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
        with self.store.lock:
            self.store.cursor().execute(
                "INSERT INTO triggers SELECT $trace::UUID, $span::UBIGINT",
                {"trace": trace_id, "span": int(span_id, 16)},
            )
        request = Request(trace_id, time.monotonic_ns())
        log.requests.append(request)
        connection = http.client.HTTPConnection(urlsplit(web.url).netloc, timeout=30)
        connection.request("GET", path, headers={"traceparent": f"00-{trace_id}-{span_id}-01"})
        request.status = connection.getresponse().status
        connection.close()
        request.end_ns = time.monotonic_ns()

    def _settle(self, runs: Mapping[str, Run]) -> Mapping[str, bool]:
        """Wait until no trace misses spans that exist and nothing has arrived for a while, or for SETTLE_S."""
        settled = dict.fromkeys(runs, False)
        deadline = time.monotonic() + SETTLE_S
        while not all(settled.values()) and time.monotonic() < deadline:
            threading.Event().wait(0.3)
            derive_calls(self.store)
            for trace_id in [trace_id for trace_id, is_settled in settled.items() if not is_settled]:
                state = check_completeness(self.connection, (trace_id,))
                if self._misses_deliveries(trace_id, runs[trace_id]):
                    continue
                if state.last_arrived_ns is not None and not any(each.is_certain for each in state.missing):
                    quiet_ns = LONG_QUIET_NS if state.missing else QUIET_NS
                    settled[trace_id] = time.time_ns() >= state.last_arrived_ns + quiet_ns
        return settled

    def _misses_deliveries(self, trace_id: str, run: Run) -> bool:
        """Return whether spans of deliveries in the log have not arrived: a queue says nothing of those to come."""
        if run.client.protocol != QUEUE:
            return False
        ((count,),) = self.connection.execute(_DELIVERIES_SQL, {"trace": trace_id}).fetchall()
        return count < len(run.log.attempts)

    def _judge_run(self, run: Run, settled: Mapping[str, bool]) -> Iterator[Compared]:
        trace_ids = tuple(request.trace_id for request in run.log.requests)
        self._judge.select_traces(SelectedTraces({each: settled[each] for each in trace_ids}))
        is_message = run.client.protocol == QUEUE
        for claim in list_claims(run.plan, run.log, run.names, is_message=is_message):
            verdict, reason, mark = self._judge_claim(claim)
            if mark in WRONG and find_limit(run.client, run.plan, claim):
                mark = Mark.LIMIT
            yield Compared(run.client.name, run.plan.name, run.traced, claim, verdict, reason, mark, trace_ids)

    def _judge_claim(self, claim: JudgedClaim) -> tuple[str, str, Mark]:
        parsed = _parse(claim.text)
        assert parsed.expectation is not None
        try:
            verdict = self._judge.judge(parsed.expectation, claim.text, Bindings())
        except Exception as error:  # a crash of the engine is a finding like others
            return "crash", f"{type(error).__name__}: {error}", Mark.ERROR
        return verdict.outcome.value, verdict.reason, compare_verdict(claim.truth, verdict.outcome)


@cache
def _parse(text: str) -> ParsedFile:
    parsed = parse_claim(text)
    diagnostics = check_claim(parsed)
    assert diagnostics == (), f"{text}: {diagnostics}"
    return parsed


def compare_verdict(truth: Truth, verdict: Verdict) -> Mark:
    """Compare a verdict with the truth. Of nothing to judge, only inconclusive is right."""
    match verdict:
        case Verdict.PASS:
            return Mark.RIGHT if truth is Truth.HOLDS else Mark.WRONG_PASS
        case Verdict.FAIL:
            return Mark.RIGHT if truth is Truth.FAILS else Mark.WRONG_FAIL
        case Verdict.INCONCLUSIVE:
            return Mark.RIGHT if truth is Truth.VACUOUS else Mark.INCONCLUSIVE
        case _:
            return Mark.ERROR
