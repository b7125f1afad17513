"""Is a claim meaningful? Collects every problem of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.comparisons import find_misplaced
from spanproof.query_lang.constants import is_constant
from spanproof.query_lang.diagnostics import Diagnostic, did_you_mean
from spanproof.query_lang.types import Scope, Types, mentions_baseline
from spanproof.query_lang.windows import read_instant


@dataclass(slots=True)
class ClaimChecker:
    """Checks claims, and keeps what it found wrong with them in ``found``."""

    found: list[Diagnostic] = field(default_factory=list)
    types: Types = field(init=False)

    def __post_init__(self) -> None:
        self.types = Types(self.found.append)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Return what was found, in the order of the text."""
        return tuple(sorted(self.found, key=lambda diagnostic: (diagnostic.at.start, diagnostic.id)))

    def problem(self, id_: str, message: str, at: s.Source, help_: str | None = None) -> None:
        """Note a problem."""
        self.found.append(Diagnostic(id_, message, at, help_))

    def expect(self, node: s.Expression, scope: Scope, kind: v.Kind, what: str) -> None:
        """Expect one value of a kind, known before any span is seen."""
        self.types.expect(node, scope, kind, what)
        self.constant(node, what)

    def constant(self, node: s.Expression, what: str) -> None:
        """Check that `node` has a value before any span is seen."""
        for part in s.walk(node):
            if isinstance(part, s.Compare | s.OneOf | s.AllOf | s.Not):
                self.problem("misplaced", f"{what} is a value, not a condition", part.at)
                return
        if not is_constant(node) and not isinstance(node, s.Target | s.Call):  # those are reported already
            self.problem("misplaced", f"{what} is one value, known before any span is seen", node.at)

    def twice(self, what: str, names_: Iterable[s.Name]) -> None:
        """Report every name that stands there already."""
        seen: set[str] = set()
        for name in names_:
            if name.text in seen:
                self.problem("duplicate", f"{what} `{name.text}` stands above already", name.at)
            seen.add(name.text)

    def expectation(self, expectation: s.Expectation, scope: Scope) -> None:
        """Check ``expect CLAIM …``."""
        self._claim(expectation.claim, scope)
        self._responses(expectation.claim, scope)
        if expectation.share is not None:
            self._share(expectation.claim, expectation.share, scope)
        if expectation.by is not None:
            self._by(expectation, expectation.by, scope)
        if expectation.confidence is not None:
            self._confidence(expectation.confidence, scope)
            self._estimate(expectation, scope)
        if expectation.label is not None:
            self.types.check_names(expectation.label, scope)

    def given(self, given: s.Given, scope: Scope) -> None:
        """Check which traces are meant."""
        row: v.Row = "call" if isinstance(given.start, s.Call) else "span"
        if given.start is not None:
            self.types.selection(given.start, scope)
        if given.where is not None:
            self.types.condition(given.where, scope.of(row))
        for bound in given.window.bounds:
            if given.window.kind == "last":
                self.expect(bound, scope, "duration", "a window")
            elif isinstance(bound, s.Text) and all(isinstance(part, str) for part in bound.parts):
                if read_instant(bound.plain) is None:
                    self.problem("bad-time", f"`{bound.plain}` is no point in time", bound.at, "2026-01-31T12:00:00Z")
            else:
                self.types.of(bound, scope)

    def _share(self, claim: s.Claim, share: s.Share, scope: Scope) -> None:
        """``in OP P of traces`` needs a claim that can be made of one trace by itself."""
        self.expect(share.value, scope, "fraction", "a share of traces")
        if isinstance(claim, s.Circuit | s.NotWorse):
            self.problem("misplaced", "this is about all traces together: no share of them can be told", share.at)
        elif any(makes_number_of_responses(part) for part in s.walk(claim)):
            self.problem("misplaced", "this is about all responses together: no share of them can be told", share.at)
        elif is_of_response(claim) and not mentions_response(claim, scope.repeated):
            self.problem("misplaced", "this is not about traces: no share of them can be told", share.at)

    def _responses(self, claim: s.Claim, scope: Scope) -> None:
        """Each response of a repeated request is judged by itself, so that no claim is about it and spans."""
        if is_of_response(claim):
            return
        for part in s.walk(s.rewrite(claim, lambda node: None if makes_number_of_responses(node) else node)):
            if isinstance(part, s.Response) and part.step in scope.repeated:
                self.problem(
                    "many-responses",
                    "the request was repeated: a claim is about each of its responses, or about spans",
                    part.at,
                    "write two claims",
                )

    def _by(self, expectation: s.Expectation, by: s.Name, scope: Scope) -> None:
        claim = expectation.claim
        if not isinstance(claim, s.Comparison | s.Every) or expectation.share or expectation.confidence:
            self.problem("misplaced", "`by` goes with a comparison or `every`, and with nothing else beside it", by.at)
            return
        self.groups(claim, by, scope)

    def groups(self, claim: s.Comparison | s.Every | s.Expression, by: s.Name, scope: Scope) -> None:
        """Check that what `claim` speaks of can be grouped by a field."""
        rows: set[v.Row] = set()
        for part in s.walk(claim):
            if isinstance(part, s.Function) and part.name in v.SELECTION_FUNCTIONS:
                if part.name == "critical" or _of_traces(part):
                    self.problem("misplaced", "`by` groups spans or calls, not whole traces", by.at)
                    return
                rows.add("call" if isinstance(part.arguments[0], s.Call) else "span")
        if isinstance(claim, s.Every):
            rows = {"call" if isinstance(claim.selection, s.Call) else "span"}
        if not rows:
            self.problem("misplaced", "there is nothing here to group", by.at)
        for row in sorted(rows):
            self.types.of(by, scope.of(row))

    def _estimate(self, expectation: s.Expectation, scope: Scope) -> None:
        """``with confidence`` needs a rate or a quantile against a limit."""
        claim = expectation.claim
        if isinstance(claim, s.NotWorse):
            return
        condition = claim.condition if isinstance(claim, s.Comparison) else None
        estimable = (
            isinstance(condition, s.Compare)
            and condition.operator in ("<", "<=", ">", ">=")
            and is_estimable(condition.left)
            and is_constant(condition.right)
        )
        if not estimable or expectation.share is not None:
            self.problem(
                "not-an-estimate",
                "`with confidence` goes with an error rate or a quantile against a limit",
                claim.at,
                "such as `error_rate(A) < 1%` or `p95(duration(A)) < 400ms`",
            )

    def _not_worse(self, claim: s.NotWorse, scope: Scope) -> None:
        value = self.types.of(claim.value, scope)
        if not is_estimable(claim.value) or mentions_baseline(claim.value):
            self.problem(
                "not-an-estimate", "this compares an error rate or a quantile with the baseline", claim.value.at
            )
        if not isinstance(claim.reference, s.Name) or claim.reference.text != "baseline":
            self.problem("misplaced", "`not worse than` is followed by `baseline`", claim.reference.at)
        else:
            self.types.of(claim.reference, scope)
        margin = self.types.of(claim.margin, scope)
        wanted = ("points", "fraction") if value.kind == "fraction" else (value.kind, "fraction")
        if "any" not in (margin.kind, value.kind) and margin.kind not in wanted:
            hint = "write percentage points, such as `0.5pp`" if value.kind == "fraction" else "write `50ms` or `10%`"
            self.problem("type-mismatch", f"the margin is {margin.name}", claim.margin.at, hint)

    def _confidence(self, node: s.Expression, scope: Scope) -> None:
        self.expect(node, scope, "fraction", "a confidence")
        if isinstance(node, s.Number) and node.unit == "%" and not 0.5 <= node.value < 1:
            self.problem("out-of-range", "a confidence lies from 50% up to, and not at, 100%", node.at)

    def _claim(self, claim: s.Claim, scope: Scope) -> None:
        match claim:
            case s.Comparison():
                self._comparison(claim, scope)
            case s.Every() | s.Some() | s.No():
                self.types.selection(claim.selection, scope)
                if claim.condition is not None:
                    row: v.Row = "call" if isinstance(claim.selection, s.Call) else "span"
                    self.types.condition(claim.condition, scope.of(row))
            case s.Path():
                self._leg(claim.leg, scope)
            case s.Before():
                self.types.selection(claim.first, scope)
                self.types.selection(claim.second, scope)
            case s.Retry():
                self._call(claim.call, "retry", scope)
                for clause in claim.clauses:
                    self._retry_clause(clause, scope)
            case s.NoRetry():
                self._call(claim.call, "no retry", scope)
            case s.Fallback():
                self._call(claim.call, "fallback", scope)
                self.types.target(claim.to, scope, "span" if claim.to.spans == "any" else "call")
            case s.Circuit():
                self._call(claim.call, "circuit", scope)
                self._circuit(claim, scope)
            case s.Timeout():
                self._call(claim.call, "timeout", scope)
                self.expect(claim.limit, scope, "duration", "`within`")
            case s.Budget():
                self._budget(claim, scope)
            case s.NotWorse():
                self._not_worse(claim, scope)
            case s.Contract():
                self.types.check_names(claim.document, scope)

    def _comparison(self, claim: s.Comparison, scope: Scope) -> None:
        node = claim.condition
        if isinstance(node, s.Compare | s.OneOf):
            before = len(self.found)
            self.types.of(node, scope)
            if len(self.found) == before:
                self.found += find_misplaced(node)
        elif isinstance(node, s.AnyOf | s.AllOf | s.Not):
            self.problem("not-a-claim", "a claim is one comparison", node.at, "write one `expect` for each condition")
        else:
            self.problem("not-a-claim", "this compares nothing", node.at, "write `… < 800ms`, `… == 1`")

    def _call(self, node: s.Selection, claim: str, scope: Scope) -> None:
        if not isinstance(node, s.Call):
            self.problem("not-a-call", f"`{claim}` is about a call `A -> B`", node.at)
        elif node.attempts:
            self.problem("misplaced", f"`{claim}` looks at whole calls, not at each `try`", node.at)
        else:
            self.types.selection(node, scope)

    def _leg(self, leg: s.Leg, scope: Scope) -> None:
        for target in leg.step.targets:
            self.types.target(target, scope, "span")
        for branch in leg.branches:
            self._leg(branch, scope)

    def _retry_clause(self, clause: s.Clause, scope: Scope) -> None:
        match clause:
            case s.Limit() if clause.name in v.RETRY_LIMITS:
                kind = v.RETRY_LIMITS[clause.name]
                self.expect(clause.value, scope, kind, f"`{clause.name}`")
            case s.Flag() if clause.name in v.RETRY_FLAGS:
                pass
            case s.Cause():
                self.types.condition(clause.condition, scope.of("call"))
            case s.Limit() | s.Flag():
                words = (*v.RETRY_LIMITS, *v.RETRY_FLAGS, "cause")
                listed = ", ".join(f"`{word}`" for word in words)
                self.problem(
                    "unknown-word",
                    f"`retry` has no clause `{clause.name}`",
                    clause.at,
                    did_you_mean(clause.name, words) or f"its clauses are {listed}",
                )
            case s.Opens():
                self.problem("misplaced", "`opens` belongs to `circuit`", clause.at)

    def _circuit(self, claim: s.Circuit, scope: Scope) -> None:
        if not any(isinstance(clause, s.Opens) for clause in claim.clauses):
            self.problem("incomplete", "a circuit opens after something", claim.at, "write `opens after 5 failures`")
        kinds = [clause.name if isinstance(clause, s.Limit) else type(clause).__name__ for clause in claim.clauses]
        for place, clause in enumerate(claim.clauses):
            if kinds[place] in kinds[:place]:
                self.problem("duplicate", "a circuit has one such clause", clause.at)
            match clause:
                case s.Opens():
                    self.expect(clause.failures, scope, "number", "`opens after`")
                case s.Limit() if clause.name in v.CIRCUIT_LIMITS:
                    self.expect(clause.value, scope, v.CIRCUIT_LIMITS[clause.name], f"`{clause.name}`")
                    wanted = ">=" if clause.name == "holds" else "<="
                    if clause.operator != wanted:
                        self.problem("misplaced", f"`{clause.name}` is a bound: write `{wanted}`", clause.at)
                case _:
                    words = ("opens", *v.CIRCUIT_LIMITS)
                    name = clause.name if isinstance(clause, s.Limit) else "this"
                    self.problem(
                        "unknown-word",
                        f"`circuit` has no clause `{name}`",
                        clause.at,
                        did_you_mean(name, words) or "its clauses are " + ", ".join(f"`{word}`" for word in words),
                    )

    def _budget(self, claim: s.Budget, scope: Scope) -> None:
        self.expect(claim.total, scope, "duration", "a budget")
        self.twice("a part", (part for part, _ in claim.parts if isinstance(part, s.Name)))
        for _, part in claim.parts:
            self.expect(part, scope, "duration", "a part of a budget")


def _of_traces(node: s.Function) -> bool:
    return bool(node.arguments) and isinstance(node.arguments[0], s.Name) and node.arguments[0].text == "traces"


def is_of_response(claim: s.Claim) -> bool:
    """Tell whether a claim looks at no span."""
    return isinstance(claim, s.Contract) or (isinstance(claim, s.Comparison) and is_constant(claim.condition))


def mentions_response(claim: s.Claim, steps: Collection[str | None]) -> bool:
    """Tell whether a claim is about the response of one of these requests; None is the latest."""
    if isinstance(claim, s.Contract):
        return None in steps
    return any(isinstance(part, s.Response) and part.step in steps for part in s.walk(claim))


def makes_number_of_responses(node: object) -> bool:
    """Tell whether this is one number of all responses, such as `p95(response.duration)`."""
    return (
        isinstance(node, s.Function)
        and node.name in v.AGGREGATES
        and bool(node.arguments)
        and isinstance(node.arguments[-1], s.Response)
    )


def is_estimable(node: s.Expression) -> bool:
    """Tell whether a sample bounds this: an error rate or a quantile of spans."""
    if makes_number_of_responses(node):
        return False
    return isinstance(node, s.Function) and (node.name in ("error_rate", "p") or v.quantile(node.name) is not None)
