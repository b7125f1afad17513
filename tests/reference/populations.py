"""Generator of populations: many small traces of two windows, and claims about them."""

from __future__ import annotations

from spanproof.tests.reference.generate import Chance, TraceSet, pick, rarely
from spanproof.tests.reference.spans import CLIENT, SERVER, Span

MS = 1_000_000
CALLEES = ("a", "b", "c")


class PopulationMaker:
    """Generator of traces of a service ``gw`` that calls others: those to judge, and those of a baseline."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.trace_set = TraceSet()
        self.span_count = 0

    def make(self) -> TraceSet:
        for is_baseline in (False, True):
            slowness, calls, failures = (self.chance.below(n) for n in (4, 3, 4))
            for _ in range(1 + self.chance.below(150)):
                self._make_trace(is_baseline, 1 + slowness, calls, failures)
        return self.trace_set

    def _make_trace(self, is_baseline: bool, slowness: int, calls: int, failures: int) -> None:
        number = len(self.trace_set.settled) + len(self.trace_set.baseline) + 1
        trace_id = f"{number:032x}"
        (self.trace_set.baseline if is_baseline else self.trace_set.settled)[trace_id] = True
        start = 1000 * number
        root = self._add(trace_id, None, "gw", SERVER, start, 10 * (1 + self.chance.below(4)) * slowness)
        for _ in range(self.chance.below(2 + calls)):
            callee = pick(self.chance, CALLEES if is_baseline else CALLEES[:2])
            ms = (1 + self.chance.below(8)) * slowness
            failed = self.chance.below(4) < failures - 1
            client = self._add(trace_id, root, "gw", CLIENT, start, ms + 1, failed=failed, address=callee)
            if not rarely(self.chance, 10):
                self._add(trace_id, client, callee, SERVER, start, ms, failed=failed)

    def _add(
        self,
        trace_id: str,
        parent: Span | None,
        service: str,
        kind: int,
        start: int,
        ms: int,
        *,
        failed: bool = False,
        address: str | None = None,
    ) -> Span:
        self.span_count += 1
        span = Span(
            trace_id,
            f"{self.span_count:016x}",
            None if parent is None else parent.span_id,
            service,
            pick(self.chance, ("GET /x", "GET /y")),
            kind,
            start * MS,
            (start + ms) * MS,
            status=2 if failed else 0,
            attributes={} if address is None else {"server.address": address},
        )
        self.trace_set.spans.append(span)
        return span


class EstimateMaker:
    """Generator of claims about populations."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance

    def make(self) -> str:
        value, margins, groups = self._pick_value()
        test = self.chance.below(3)
        if test == 0:
            claim = f"{value} not worse than baseline by {self._pick_margin(margins)}"
        elif test == 1:
            claim = f"{value} within {self._pick_margin(margins)} of baseline"
        else:
            limit = pick(self.chance, margins).replace("pp", "%")
            claim = f"{value} {pick(self.chance, ('<', '<=', '>', '>='))} {limit}"
        if self.chance.below(3):
            claim += f" by {pick(self.chance, groups)}"
            if rarely(self.chance, 3):
                claim += f" having count >= {1 + self.chance.below(12)}"
        level = pick(self.chance, ("60%", "80%", "95%", "99.5%"))
        return claim if test != 2 and rarely(self.chance, 4) else f"{claim} with confidence {level}"

    def _pick_value(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        call = pick(self.chance, ("gw -> *", "gw -> a", "* -> *"))
        span = pick(self.chance, ("*", "gw", "span *", "a"))
        of_calls, of_spans = ("callee", "caller, callee", "operation"), ("service", "service, name", "kind, service")
        durations = ("5ms", "10ms", "20ms", "50ms")
        selection, groups = pick(self.chance, ((call, of_calls), (span, of_spans)))
        match self.chance.below(4):
            case 0:
                return f"error_rate({selection})", ("10pp", "30pp", "60pp"), groups
            case 1:
                return f"avg(calls({call}))", ("0.2", "0.5", "1", "2"), of_calls
            case 2:
                return f"avg(duration({selection}))", durations, groups
        quantile = pick(self.chance, ("p50", "p75", "p90"))
        return f"{quantile}(duration({selection}))", durations, groups

    def _pick_margin(self, absolute: tuple[str, ...]) -> str:
        margins = absolute if absolute[0].endswith("pp") else (*absolute, "20%", "100%")
        first = pick(self.chance, margins)
        return f"{first} or {pick(self.chance, margins)}" if rarely(self.chance, 4) else first
