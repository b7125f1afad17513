"""Is a parsed proof meaningful? Collects every problem of a file before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.constants import is_constant
from spanproof.query_lang.diagnostics import Diagnostic, did_you_mean
from spanproof.query_lang.parse import ParsedClaim, ProofFile
from spanproof.query_lang.types import Scope, Types

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
SINGLE_OPTIONS: Final = ("json", "body", "form", "timeout", "repeat")


def check_file(file: ProofFile) -> tuple[Diagnostic, ...]:
    """Return the problems of a file in the order of its text; none means that it can run."""
    if file.diagnostics:
        return file.diagnostics
    checker = _Checker()
    checker.items(file.items)
    return checker.sorted()


def check_claim(parsed: ParsedClaim, scope: Scope | None = None) -> tuple[Diagnostic, ...]:
    """Return the problems of a claim that stands by itself."""
    if parsed.diagnostics or parsed.expectation is None:
        return parsed.diagnostics
    checker = _Checker()
    checker.expectation(parsed.expectation, scope or Scope())
    return checker.sorted()


@dataclass(slots=True)
class _Checker:
    found: list[Diagnostic] = field(default_factory=list)
    types: Types = field(init=False)

    def __post_init__(self) -> None:
        self.types = Types(self.found.append)

    def sorted(self) -> tuple[Diagnostic, ...]:
        return tuple(sorted(self.found, key=lambda diagnostic: (diagnostic.at.start, diagnostic.id)))

    def problem(self, id_: str, message: str, at: s.Source, help_: str | None = None) -> None:
        self.found.append(Diagnostic(id_, message, at, help_))

    # ## Files and proofs

    def items(self, items: tuple[s.Item, ...]) -> None:
        scope = Scope()
        seen: dict[str, s.Proof] = {}
        for item in items:
            match item:
                case s.Let():
                    scope = self.let(item, scope)
                case s.Proof():
                    if item.name in seen:
                        self.problem("duplicate", f'a proof "{item.name}" stands above already', item.at)
                    seen[item.name] = item
                    self.proof(item, scope)
                case _:
                    self.not_yet(type(item).__name__.lower(), item.at)

    def proof(self, proof: s.Proof, scope: Scope) -> None:
        if not any(isinstance(statement, s.Expectation) for statement in proof.statements):
            self.problem("nothing-expected", f'the proof "{proof.name}" expects nothing', proof.at)
        sent = False
        settles = [statement for statement in proof.statements if isinstance(statement, s.Settle)]
        for extra in settles[1:]:
            self.problem("duplicate", "a proof settles once", extra.at)
        for statement in proof.statements:
            match statement:
                case s.Let():
                    scope = self.let(statement, scope)
                case s.When():
                    self.when(statement, scope)
                    if sent:
                        self.not_yet("a second `when`", statement.at)
                    sent = True
                    if statement.name is not None:
                        scope = replace(scope, requests=scope.requests | {statement.name.text})
                case s.Settle():
                    self.types.expect(statement.limit, scope, "duration", "`within`")
                    if statement.quiet is not None:
                        self.types.expect(statement.quiet, scope, "duration", "`quiet`")
                case s.Expectation():
                    if not sent:
                        self.problem(
                            "no-traces", "nothing before this says which traces to judge", statement.at, "add a `when`"
                        )
                        sent = True
                    self.expectation(statement, scope)
                case _:
                    self.not_yet(_statement_name(statement), statement.at)

    def not_yet(self, what: str, at: s.Source) -> None:
        self.problem("not-yet", f"{what} is not carried out by this version", at)

    def let(self, let: s.Let, scope: Scope) -> Scope:
        type_ = self.types.of(let.value, scope)
        if type_.many:
            self.problem("misplaced", "a variable holds one value", let.value.at)
        return replace(scope, variables={**scope.variables, let.name.text: replace(type_, many=False)})

    def when(self, when: s.When, scope: Scope) -> None:
        if when.kind in ("grpc", "publish", "run", "trace"):
            self.not_yet(f"`when {when.kind}`", when.at)
        elif when.kind not in METHODS:
            self.problem(
                "unknown-word", f"`{when.kind}` is not an HTTP method", when.at, did_you_mean(when.kind, METHODS)
            )
        for target in when.targets:
            if isinstance(target, s.Text):
                self.types.check_names(target, scope)
        seen: set[str] = set()
        for option in when.options:
            if option.kind in SINGLE_OPTIONS and option.kind in seen:
                self.problem("duplicate", f"`{option.kind}` stands twice", option.at)
            if option.kind in ("json", "body", "form") and seen & {"json", "body", "form"} - {option.kind}:
                self.problem("duplicate", "a request has one body", option.at)
            seen.add(option.kind)
            self.option(option, scope)

    def option(self, option: s.Option, scope: Scope) -> None:
        if option.kind == "header" and option.key is not None and option.key.plain.lower() == "traceparent":
            self.problem("misplaced", "`traceparent` is sent by spanproof, which must know the trace", option.at)
        match option.kind:
            case "repeat" | "file":
                self.not_yet(f"`{option.kind}`", option.at)
            case "timeout":
                self.types.expect(option.value, scope, "duration", "`timeout`")  # type: ignore[arg-type]
            case "json" | "form":
                self.json(option.value, scope)
            case _:
                self.types.of(option.value, scope)  # type: ignore[arg-type]  # not JSON

    def json(self, node: object, scope: Scope) -> None:
        if isinstance(node, s.Text):
            self.types.check_names(node, scope)
        elif isinstance(node, s.Name):
            self.types.of(node, scope)
        else:
            for part in s.children(node):
                self.json(part, scope)

    # ## Claims

    def expectation(self, expectation: s.Expectation, scope: Scope) -> None:
        self.claim(expectation.claim, scope)
        if expectation.share is not None:
            self.types.expect(expectation.share.value, scope, "fraction", "a share of traces")
        if expectation.by is not None:
            self.by(expectation, expectation.by, scope)
        if expectation.confidence is not None:
            self.confidence(expectation.confidence, scope)
            self.estimate(expectation, scope)
        if expectation.label is not None:
            self.types.check_names(expectation.label, scope)

    def by(self, expectation: s.Expectation, by: s.Name, scope: Scope) -> None:
        claim = expectation.claim
        if not isinstance(claim, s.Comparison | s.Every) or expectation.share or expectation.confidence:
            self.problem("misplaced", "`by` goes with a comparison or `every`, and with nothing else beside it", by.at)
            return
        rows: set[v.Row] = set()
        for part in s.walk(claim):
            if isinstance(part, s.Function) and part.name in v.SELECTION_FUNCTIONS:
                rows.add("call" if isinstance(part.arguments[0], s.Call) else "span")
        if isinstance(claim, s.Every):
            rows = {"call" if isinstance(claim.selection, s.Call) else "span"}
        if not rows:
            self.problem("misplaced", "there is nothing here to group", by.at)
        for row in sorted(rows):
            self.types.of(by, scope.of(row))

    def estimate(self, expectation: s.Expectation, scope: Scope) -> None:
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

    def not_worse(self, claim: s.NotWorse, scope: Scope) -> None:
        value = self.types.of(claim.value, scope)
        if not is_estimable(claim.value):
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

    def confidence(self, node: s.Expression, scope: Scope) -> None:
        self.types.expect(node, scope, "fraction", "a confidence")
        if isinstance(node, s.Number) and node.unit == "%" and not 0.5 <= node.value < 1:
            self.problem("out-of-range", "a confidence lies from 50% up to, and not at, 100%", node.at)

    def claim(self, claim: s.Claim, scope: Scope) -> None:
        match claim:
            case s.Comparison():
                self.comparison(claim, scope)
            case s.Every() | s.Some() | s.No():
                self.types.selection(claim.selection, scope)
                if claim.condition is not None:
                    row: v.Row = "call" if isinstance(claim.selection, s.Call) else "span"
                    self.types.condition(claim.condition, scope.of(row))
            case s.Path():
                self.leg(claim.leg, scope)
            case s.Before():
                self.types.selection(claim.first, scope)
                self.types.selection(claim.second, scope)
            case s.Retry():
                self.call(claim.call, "retry", scope)
                for clause in claim.clauses:
                    self.retry_clause(clause, scope)
            case s.NoRetry():
                self.call(claim.call, "no retry", scope)
            case s.Fallback():
                self.call(claim.call, "fallback", scope)
                self.types.target(claim.to, scope, "span")
            case s.Circuit():
                self.call(claim.call, "circuit", scope)
                self.not_yet("`circuit`", claim.at)
            case s.Timeout():
                self.call(claim.call, "timeout", scope)
                self.types.expect(claim.limit, scope, "duration", "`within`")
            case s.Budget():
                self.budget(claim, scope)
            case s.NotWorse():
                self.not_worse(claim, scope)
            case s.Contract():
                self.not_yet("a response contract", claim.at)

    def comparison(self, claim: s.Comparison, scope: Scope) -> None:
        node = claim.condition
        if isinstance(node, s.Compare | s.OneOf):
            self.types.of(node, scope)
        elif isinstance(node, s.AnyOf | s.AllOf | s.Not):
            self.problem("not-a-claim", "a claim is one comparison", node.at, "write one `expect` for each condition")
        else:
            self.problem("not-a-claim", "this compares nothing", node.at, "write `… < 800ms`, `… == 1`")

    def call(self, node: s.Selection, claim: str, scope: Scope) -> None:
        if not isinstance(node, s.Call):
            self.problem("not-a-call", f"`{claim}` is about a call `A -> B`", node.at)
        elif node.attempts:
            self.problem("misplaced", f"`{claim}` looks at whole calls, not at each `try`", node.at)
        else:
            self.types.selection(node, scope)

    def leg(self, leg: s.Leg, scope: Scope) -> None:
        for target in leg.step.targets:
            self.types.target(target, scope, "span")
        for branch in leg.branches:
            self.leg(branch, scope)

    def retry_clause(self, clause: s.Clause, scope: Scope) -> None:
        match clause:
            case s.Limit() if clause.name in v.RETRY_LIMITS:
                kind = v.RETRY_LIMITS[clause.name]
                self.types.expect(clause.value, scope, kind, f"`{clause.name}`")
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

    def budget(self, claim: s.Budget, scope: Scope) -> None:
        self.types.expect(claim.total, scope, "duration", "a budget")
        for _, part in claim.parts:
            self.types.expect(part, scope, "duration", "a part of a budget")


def is_estimable(node: s.Expression) -> bool:
    """Tell whether a sample bounds this: an error rate or a quantile."""
    return isinstance(node, s.Function) and (node.name in ("error_rate", "p") or v.quantile(node.name) is not None)


def _statement_name(statement: s.Statement) -> str:
    if isinstance(statement, s.Given):
        return "`compare baseline`" if statement.baseline else "`given`"
    return f"`{type(statement).__name__.lower()}`"
