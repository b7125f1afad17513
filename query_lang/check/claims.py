"""Checker of claims: collects all problems of a claim."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from spanproof.query_lang.check.comparisons import find_misplaced_operands
from spanproof.query_lang.check.constants import is_constant
from spanproof.query_lang.check.operands import compares_value_sets, is_estimate
from spanproof.query_lang.check.scope import Scope
from spanproof.query_lang.check.types import TypeChecker, mentions_baseline
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax import vocabulary as v
from spanproof.query_lang.syntax.diagnostics import Diagnostic, suggest_names
from spanproof.query_lang.syntax.instants import parse_instant

_ESTIMATE_HELP: Final = "such as `error_rate(A)`, `p95(duration(A))` or `avg(calls(A -> B))`"


class ClaimChecker:
    """Checker of claims. Collects problems in ``diagnostics``."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.type_checker = TypeChecker(self.diagnostics.append)

    def list_diagnostics(self) -> tuple[Diagnostic, ...]:
        """Return the problems in the order of the text."""
        return tuple(sorted(self.diagnostics, key=lambda diagnostic: (diagnostic.at.start, diagnostic.id)))

    def report(self, id_: str, message: str, at: s.TextRange, help_: str | None = None) -> None:
        """Add a problem."""
        self.diagnostics.append(Diagnostic(id_, message, at, help_))

    def check_constant_of_kind(self, node: s.Expression, scope: Scope, kind: v.ValueKind, what: str) -> None:
        """Check that `node` is one value of a kind, known before any span is read."""
        self.type_checker.check_kind(node, scope, kind, what)
        self.check_constant(node, what)

    def check_constant(self, node: s.Expression, what: str) -> None:
        """Check that `node` has a value that is known before any span is read."""
        for part in s.walk(node):
            if isinstance(part, s.Compare | s.OneOf | s.AllOf | s.Not):
                self.report("misplaced", f"{what} is a value, not a condition", part.at)
                return
        if not is_constant(node) and not isinstance(
            node, s.SpanSelection | s.CallSelection
        ):  # those are reported already
            self.report("misplaced", f"{what} is one value, known before any span is read", node.at)

    def report_duplicates(self, what: str, names: Iterable[s.Name]) -> None:
        """Report each name that occurs more than once."""
        texts: set[str] = set()
        for name in names:
            if name.text in texts:
                self.report("duplicate", f"{what} `{name.text}` is already defined above", name.at)
            texts.add(name.text)

    def check_expectation(self, expectation: s.Expectation, scope: Scope) -> None:
        """Check ``expect CLAIM …``."""
        self._check_claim(expectation.claim, scope)
        self._check_responses(expectation.claim, scope)
        if expectation.share is not None:
            self._check_share(expectation.claim, expectation.share, scope)
        if expectation.by:
            self._check_by(expectation, scope)
        if expectation.having is not None:
            self._check_having(expectation, expectation.having, scope)
        if expectation.confidence is not None:
            self._check_confidence(expectation.confidence, scope)
            self._check_estimate(expectation, scope)
        if expectation.label is not None:
            self.type_checker.check_names(expectation.label, scope)

    def check_given(self, given: s.Given, scope: Scope) -> None:
        """Check the selection and the time window of ``given``."""
        row: v.RowKind = "call" if isinstance(given.start, s.CallSelection) else "span"
        if given.start is not None and given.start.pick is not None:
            self.report("misplaced", "a window selects traces by any of their spans or calls", given.start.at)
        if given.start is not None:
            self.type_checker.check_selection(given.start, scope)
        if given.where is not None:
            self.type_checker.check_condition(given.where, scope.with_row(row))
        for bound in given.window.bounds:
            if given.window.kind == "last":
                self.check_constant_of_kind(bound, scope, "duration", "a window")
            elif isinstance(bound, s.Text) and all(isinstance(part, str) for part in bound.parts):
                if parse_instant(bound.plain) is None:
                    self.report("bad-time", f"`{bound.plain}` is not a point in time", bound.at, "2026-01-31T12:00:00Z")
            else:
                self.type_checker.infer(bound, scope)

    def _check_share(self, claim: s.Claim, share: s.ShareClause, scope: Scope) -> None:
        """Check ``in OP P of traces``, which needs a claim about a single trace."""
        self.check_constant_of_kind(share.value, scope, "fraction", "a share of traces")
        if isinstance(claim, s.Circuit | s.BaselineTest):
            self.report(
                "misplaced",
                "this claim is about all traces together; `of traces` needs a claim about a single trace",
                share.at,
            )
        elif any(is_response_aggregate(part) for part in s.walk(claim)):
            self.report(
                "misplaced",
                "this claim is about all responses together; `of traces` needs a claim about a single trace",
                share.at,
            )
        elif is_response_claim(claim) and not mentions_response(claim, scope.repeated):
            self.report(
                "misplaced", "this claim is not about traces; `of traces` needs a claim about a single trace", share.at
            )

    def _check_responses(self, claim: s.Claim, scope: Scope) -> None:
        """Report claims about both spans and a response of a repeated request: its responses are judged one by one."""
        if is_response_claim(claim):
            return
        for part in s.walk(s.rewrite(claim, lambda node: None if is_response_aggregate(node) else node)):
            if isinstance(part, s.Response) and part.step in scope.repeated:
                self.report(
                    "many-responses",
                    "the request is repeated: a claim is about each of its responses or about spans, not both",
                    part.at,
                    "write two claims",
                )

    def _check_by(self, expectation: s.Expectation, scope: Scope) -> None:
        claim, by = expectation.claim, expectation.by
        compares_sets = any(compares_value_sets(part) for part in s.walk(claim))
        if (
            not isinstance(claim, s.ComparisonClaim | s.Every | s.BaselineTest)
            or compares_sets
            or expectation.share is not None
        ):
            self.report(
                "misplaced",
                "`by` groups a comparison, `every` or a test against the baseline, and not with `of traces`",
                by[0].at,
            )
            return
        self.check_grouping(claim, by, scope, is_estimate=is_estimate(expectation))

    def _check_having(self, expectation: s.Expectation, having: s.Having, scope: Scope) -> None:
        if not expectation.by or not is_estimate(expectation):
            self.report(
                "misplaced",
                "`having` leaves groups out of an estimate: it follows `by`, in a claim with "
                "`with confidence` or about the baseline",
                having.at,
            )
        self.check_constant_of_kind(having.value, scope, "number", "`having count`")
        if having.operator not in (">", ">="):
            self.report("misplaced", "`having count` is a lower bound: write `>=`", having.at)

    def check_grouping(
        self,
        claim: s.ComparisonClaim | s.Every | s.BaselineTest | s.Expression,
        by: tuple[s.Name, ...],
        scope: Scope,
        *,
        is_estimate: bool = False,
    ) -> None:
        """Check that the rows of `claim` can be grouped by these fields."""
        rows: set[v.RowKind] = set()
        for part in s.walk(claim):
            if isinstance(part, s.Function) and part.name in v.SELECTION_FUNCTIONS:
                if part.name == "critical" or _is_about_traces(part):
                    self.report("misplaced", "`by` groups spans or calls, not whole traces", by[0].at)
                    return
                if part.name == "calls" and not is_estimate:
                    self.report("misplaced", "calls per request are grouped in a test against the baseline", by[0].at)
                    return
                rows.add("call" if isinstance(part.arguments[0], s.CallSelection) else "span")
        if isinstance(claim, s.Every):
            rows = {"call" if isinstance(claim.selection, s.CallSelection) else "span"}
        if not rows:
            self.report("misplaced", "there are no rows to group here", by[0].at)
        self.report_duplicates("the field", by)
        for row in sorted(rows):
            for field in by:
                self.type_checker.infer(field, scope.with_row(row))

    def _check_estimate(self, expectation: s.Expectation, scope: Scope) -> None:
        """Check ``with confidence``, which needs a comparison of a rate or a quantile with a limit."""
        claim = expectation.claim
        if isinstance(claim, s.BaselineTest):
            return
        condition = claim.condition if isinstance(claim, s.ComparisonClaim) else None
        estimable = (
            isinstance(condition, s.Compare)
            and condition.operator in ("<", "<=", ">", ">=")
            and is_estimable(condition.left)
            and is_constant(condition.right)
        )
        if not estimable or expectation.share is not None:
            self.report(
                "not-an-estimate",
                "`with confidence` needs a comparison of an error rate, a mean or a quantile with a limit",
                claim.at,
                _ESTIMATE_HELP,
            )

    def _check_baseline_test(self, claim: s.BaselineTest, scope: Scope) -> None:
        words = "`within … of`" if claim.is_two_sided else "`not worse than`"
        value = self.type_checker.infer(claim.value, scope)
        if not is_estimable(claim.value) or mentions_baseline(claim.value):
            problem = f"{words} compares an error rate, a mean or a quantile with the baseline"
            self.report("not-an-estimate", problem, claim.value.at, _ESTIMATE_HELP)
        if not isinstance(claim.reference, s.Name) or claim.reference.text != "baseline":
            self.report("misplaced", f"{words} must be followed by `baseline`", claim.reference.at)
        else:
            self.type_checker.infer(claim.reference, scope)
        wanted = ("points", "fraction") if value.kind == "fraction" else (value.kind, "fraction")
        hint = "write percentage points, such as `0.5pp`" if value.kind == "fraction" else "write `50ms` or `10%`"
        for part in (claim.margin.value, claim.margin.floor):
            if part is None:
                continue
            margin = self.type_checker.infer(part, scope)
            if "any" not in (margin.kind, value.kind) and margin.kind not in wanted:
                self.report("type-mismatch", f"the margin cannot be {margin.name}", part.at, hint)
            elif isinstance(part, s.Negative):
                self.report("out-of-range", "a margin is not negative", part.at)
            else:
                self.check_constant(part, "a margin")

    def _check_confidence(self, node: s.Expression, scope: Scope) -> None:
        self.check_constant_of_kind(node, scope, "fraction", "a confidence")
        if isinstance(node, s.Number) and node.unit == "%" and not 0.5 < node.value < 1:
            self.report("out-of-range", "a confidence is more than 50% and less than 100%", node.at)

    def _check_claim(self, claim: s.Claim, scope: Scope) -> None:
        match claim:
            case s.ComparisonClaim():
                self._check_comparison(claim, scope)
            case s.Every() | s.Some() | s.No():
                self.type_checker.check_selection(claim.selection, scope)
                if claim.condition is not None:
                    row: v.RowKind = "call" if isinstance(claim.selection, s.CallSelection) else "span"
                    self.type_checker.check_condition(claim.condition, scope.with_row(row))
            case s.Path():
                self._check_segment(claim.segment, scope)
            case s.Before():
                self.type_checker.check_selection(claim.first, scope)
                self.type_checker.check_selection(claim.second, scope)
                if claim.limit is not None:
                    self.check_constant_of_kind(claim.limit, scope, "duration", "`within`")
            case s.IfThen():
                for part in (claim.condition, claim.consequence):
                    self._check_part_of_if(part, scope)
            case s.Retry():
                self._check_call(claim.call, "retry", scope)
                for clause in claim.clauses:
                    self._check_retry_clause(clause, scope)
            case s.NoRetry():
                self._check_call(claim.call, "no retry", scope)
            case s.Fallback():
                self._check_call(claim.call, "fallback", scope)
                self.type_checker.check_target(claim.to, scope, "span" if claim.to.spans == "any" else "call")
            case s.Circuit():
                self._check_call(claim.call, "circuit", scope)
                self._check_circuit(claim, scope)
            case s.Timeout():
                self._check_call(claim.call, "timeout", scope)
                self.check_constant_of_kind(claim.limit, scope, "duration", "`within`")
            case s.Budget():
                self._check_budget(claim, scope)
            case s.BaselineTest():
                self._check_baseline_test(claim, scope)
            case s.Contract():
                self.type_checker.check_names(claim.document, scope)

    def _check_part_of_if(self, claim: s.Claim, scope: Scope) -> None:
        """Check a claim of ``if … then``, which is judged in each trace by itself."""
        if isinstance(claim, s.IfThen):
            self.report("misplaced", "an `if` contains no other `if`", claim.at, "write two claims")
        elif isinstance(claim, s.Circuit | s.BaselineTest | s.Contract) or any(
            is_response_aggregate(part) for part in s.walk(claim)
        ):
            self.report("misplaced", "`if` and `then` need claims about a single trace", claim.at)
        else:
            self._check_claim(claim, scope)

    def _check_comparison(self, claim: s.ComparisonClaim, scope: Scope) -> None:
        node = claim.condition
        if isinstance(node, s.Compare | s.OneOf):
            count_before = len(self.diagnostics)
            self.type_checker.infer(node, scope)
            if len(self.diagnostics) == count_before:
                self.diagnostics += find_misplaced_operands(node)
        elif isinstance(node, s.AnyOf | s.AllOf | s.Not):
            self.report("not-a-claim", "a claim is one comparison", node.at, "write one `expect` for each condition")
        else:
            self.report("not-a-claim", "this is not a comparison", node.at, "write `… < 800ms`, `… == 1`")

    def _check_call(self, node: s.Selection, claim: str, scope: Scope) -> None:
        if not isinstance(node, s.CallSelection):
            self.report("not-a-call", f"`{claim}` is about a call `A -> B`", node.at)
        elif node.attempts:
            self.report("misplaced", f"`{claim}` is about logical calls, not about single attempts (`try`)", node.at)
        elif node.pick is not None:
            self.report("misplaced", f"`{claim}` is about all calls, not the `{node.pick}` of each trace", node.at)
        else:
            self.type_checker.check_selection(node, scope)

    def _check_segment(self, segment: s.PathSegment, scope: Scope) -> None:
        for target in segment.step.targets:
            self.type_checker.check_target(target, scope, "span")
        for branch in segment.branches:
            self._check_segment(branch, scope)

    def _check_retry_clause(self, clause: s.Clause, scope: Scope) -> None:
        match clause:
            case s.Limit() if clause.name in v.RETRY_LIMITS:
                kind = v.RETRY_LIMITS[clause.name]
                self.check_constant_of_kind(clause.value, scope, kind, f"`{clause.name}`")
            case s.Flag() if clause.name in v.RETRY_FLAGS:
                pass
            case s.Cause():
                self.type_checker.check_condition(clause.condition, scope.with_row("call"))
            case s.Limit() | s.Flag():
                words = (*v.RETRY_LIMITS, *v.RETRY_FLAGS, "cause")
                listed = ", ".join(f"`{word}`" for word in words)
                self.report(
                    "unknown-word",
                    f"`retry` has no clause `{clause.name}`",
                    clause.at,
                    suggest_names(clause.name, words) or f"its clauses are {listed}",
                )
            case s.OpensAfter():
                self.report("misplaced", "`opens` belongs to `circuit`", clause.at)

    def _check_circuit(self, claim: s.Circuit, scope: Scope) -> None:
        if not any(isinstance(clause, s.OpensAfter) for clause in claim.clauses):
            self.report(
                "incomplete", "a circuit needs an `opens after` clause", claim.at, "write `opens after 5 failures`"
            )
        kinds = [clause.name if isinstance(clause, s.Limit) else type(clause).__name__ for clause in claim.clauses]
        for index, clause in enumerate(claim.clauses):
            if kinds[index] in kinds[:index]:
                self.report("duplicate", "a circuit has at most one such clause", clause.at)
            match clause:
                case s.OpensAfter():
                    self.check_constant_of_kind(clause.failures, scope, "number", "`opens after`")
                case s.Limit() if clause.name in v.CIRCUIT_LIMITS:
                    self.check_constant_of_kind(clause.value, scope, v.CIRCUIT_LIMITS[clause.name], f"`{clause.name}`")
                    wanted = ">=" if clause.name == "holds" else "<="
                    if clause.operator != wanted:
                        self.report("misplaced", f"`{clause.name}` is a bound: write `{wanted}`", clause.at)
                case _:
                    words = ("opens", *v.CIRCUIT_LIMITS)
                    name = clause.name if isinstance(clause, s.Limit) else "this"
                    self.report(
                        "unknown-word",
                        f"`circuit` has no clause `{name}`",
                        clause.at,
                        suggest_names(name, words) or "its clauses are " + ", ".join(f"`{word}`" for word in words),
                    )

    def _check_budget(self, claim: s.Budget, scope: Scope) -> None:
        self.check_constant_of_kind(claim.total, scope, "duration", "a budget")
        self.report_duplicates("a part", (part for part, _ in claim.parts if isinstance(part, s.Name)))
        for _, part in claim.parts:
            self.check_constant_of_kind(part, scope, "duration", "a part of a budget")


def _is_about_traces(node: s.Function) -> bool:
    return bool(node.arguments) and isinstance(node.arguments[0], s.Name) and node.arguments[0].text == "traces"


def is_response_claim(claim: s.Claim) -> bool:
    """Return whether a claim reads no span."""
    return isinstance(claim, s.Contract) or (isinstance(claim, s.ComparisonClaim) and is_constant(claim.condition))


def mentions_response(claim: s.Claim, steps: Collection[str | None]) -> bool:
    """Return whether a claim is about the response of one of the requests `steps`. None is the latest request."""
    if isinstance(claim, s.Contract):
        return None in steps
    return any(isinstance(part, s.Response) and part.step in steps for part in s.walk(claim))


def is_response_aggregate(node: object) -> bool:
    """Return whether `node` aggregates all responses to one number, such as `p95(response.duration)`."""
    return (
        isinstance(node, s.Function)
        and node.name in v.AGGREGATES
        and bool(node.arguments)
        and isinstance(node.arguments[-1], s.Response)
    )


def is_estimable(node: s.Expression) -> bool:
    """Return whether a sample can bound `node`: an error rate, a mean or a quantile of spans or calls."""
    if is_response_aggregate(node) or not isinstance(node, s.Function):
        return False
    inner = node.arguments[-1] if node.arguments else None
    if node.name != "avg" and isinstance(inner, s.Function) and inner.name == "calls":
        return False  # the requests without a call are known by their number only
    return node.name in ("error_rate", "avg", "p") or v.read_quantile(node.name) is not None
