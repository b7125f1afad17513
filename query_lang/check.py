"""Is a parsed proof meaningful? Collects every problem of a file before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.comparisons import find_misplaced
from spanproof.query_lang.constants import is_constant
from spanproof.query_lang.diagnostics import Diagnostic, did_you_mean
from spanproof.query_lang.library import Definition, Library
from spanproof.query_lang.parse import ParsedClaim, ProofFile
from spanproof.query_lang.types import Scope, Types, mentions_baseline, names
from spanproof.query_lang.windows import read_instant

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
LEFT_OUT: Final = ("unknown-name", "nothing-expected", "no-traces", "no-baseline")
SINGLE_OPTIONS: Final = ("json", "body", "form", "timeout", "repeat")


def check_file(file: ProofFile, library: Library | None = None) -> tuple[Diagnostic, ...]:
    """Return the problems of a file in the order of its text; none means that it can run.

    `library` holds what it can use of other files, and its own definitions; without one, these are all there is.
    """
    own = {item.name: Definition(file, item) for item in file.items if isinstance(item, s.Define)}
    checker = _Checker(library or Library(defines=own))
    checker.items(file.items)
    if file.diagnostics:  # what was left out of the tree must not be missed in it
        checker.found = [each for each in checker.found if each.id not in LEFT_OUT]
        checker.found += file.diagnostics
    return checker.sorted()


def check_claim(parsed: ParsedClaim, scope: Scope | None = None) -> tuple[Diagnostic, ...]:
    """Return the problems of a claim that stands by itself."""
    if parsed.diagnostics or parsed.expectation is None:
        return parsed.diagnostics
    checker = _Checker(Library())
    checker.expectation(parsed.expectation, scope or Scope())
    return checker.sorted()


@dataclass(slots=True)
class _Checker:
    library: Library
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
        for _, let in self.library.lets:
            scope = self.let(let, scope)
        self.found.clear()  # what is wrong with another file is said of that file
        self.lets(items)
        seen: set[tuple[type, str]] = set()
        for item in items:
            if isinstance(item, s.Proof | s.Define):
                if (type(item), item.name) in seen:
                    word = "proof" if isinstance(item, s.Proof) else "definition"
                    self.problem("duplicate", f'a {word} "{item.name}" stands above already', item.at)
                seen.add((type(item), item.name))
            match item:
                case s.Let():
                    scope = self.let(item, scope)
                case s.Proof():
                    self.proof(item, scope)
                case s.Define():
                    self.define(item, scope)
                case s.Hook():
                    self.hook(item, scope)
                case s.Use():
                    self.types.check_names(item.path, Scope())

    def define(self, define: s.Define, scope: Scope) -> None:
        if not define.statements:
            self.problem("nothing-expected", f"`{define.name}` expects nothing", define.at)
        self.lets(define.statements, *define.parameters)
        inner = replace(scope, variables={**scope.variables, **names(define.parameters)}, baseline=True)
        for statement in define.statements:
            if isinstance(statement, s.Expectation):
                self.expectation(statement, inner)
            elif isinstance(statement, s.Let):
                inner = self.let(statement, inner)
            else:
                self.problem("misplaced", "a definition holds `expect` and `let`", statement.at)

    def hook(self, hook: s.Hook, scope: Scope) -> None:
        self.lets(hook.statements)
        for statement in hook.statements:
            match statement:
                case s.Let():
                    scope = self.let(statement, scope)
                case s.When() if statement.kind != "trace":
                    scope = self.when(statement, scope)
                case _:
                    self.problem("misplaced", f"`{hook.time}` holds `when` and `let`", statement.at)

    def proof(self, proof: s.Proof, scope: Scope) -> None:
        if not any(isinstance(statement, s.Expectation | s.Apply) for statement in proof.statements):
            self.problem("nothing-expected", f'the proof "{proof.name}" expects nothing', proof.at)
        self.lets(proof.statements)
        self.twice("a request", (each.name for each in proof.statements if isinstance(each, s.When) and each.name))
        settles = [statement for statement in proof.statements if isinstance(statement, s.Settle)]
        for extra in settles[1:]:
            self.problem("duplicate", "a proof settles once", extra.at)
        chosen = False
        for statement in proof.statements:
            match statement:
                case s.Let():
                    scope = self.let(statement, scope)
                case s.When():
                    scope = self.when(statement, scope)
                    chosen = True
                case s.Given():
                    self.given(statement, scope)
                    chosen = chosen or not statement.baseline
                    scope = replace(scope, baseline=scope.baseline or statement.baseline)
                case s.Settle():
                    self.expect(statement.limit, scope, "duration", "`within`")
                    if statement.quiet is not None:
                        self.expect(statement.quiet, scope, "duration", "`quiet`")
                case s.Hook():
                    self.hook(statement, scope)
                case s.Expectation() | s.Apply():
                    if not chosen:
                        self.problem(
                            "no-traces",
                            "nothing before this says which traces to judge",
                            statement.at,
                            "begin with a `when` or a `given`",
                        )
                        chosen = True
                    if isinstance(statement, s.Apply):
                        self.apply(statement, scope)
                    else:
                        self.expectation(statement, scope)

    def apply(self, apply: s.Apply, scope: Scope) -> None:
        definition = self.library.defines.get(apply.name)
        if definition is None:
            hint = did_you_mean(apply.name, self.library.defines)
            self.problem("unknown-name", f"no `define {apply.name}(…)` is there", apply.at, hint)
            return
        wanted = len(definition.define.parameters)
        if len(apply.arguments) != wanted:
            self.problem("arguments", f"`{apply.name}` takes {wanted}, and {len(apply.arguments)} are given", apply.at)
        for argument in apply.arguments:
            if not isinstance(argument, s.Name) and is_constant(argument):
                self.types.of(argument, scope)
            elif not isinstance(argument, s.Name):
                self.problem("arguments", "an argument is a value or the name of a service", argument.at)
        for part in s.walk(definition.define):
            if isinstance(part, s.Name) and part.text == "baseline" and not scope.baseline:
                self.problem(
                    "no-baseline",
                    f"`{apply.name}` speaks of the baseline, which needs a `compare baseline from …` in the same proof",
                    apply.at,
                )
                return

    def given(self, given: s.Given, scope: Scope) -> None:
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

    def not_yet(self, what: str, at: s.Source) -> None:
        self.problem("not-yet", f"{what} is not carried out by this version", at)

    def expect(self, node: s.Expression, scope: Scope, kind: v.Kind, what: str) -> None:
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

    def lets(self, statements: Iterable[object], *above: s.Name) -> None:
        """Check that no name is given to two values of one block."""
        self.twice("a value", (*above, *(each.name for each in statements if isinstance(each, s.Let))))

    def let(self, let: s.Let, scope: Scope) -> Scope:
        type_ = self.types.of(let.value, scope)
        self.constant(let.value, "a variable")
        return replace(scope, variables={**scope.variables, let.name.text: replace(type_, many=False)})

    def when(self, when: s.When, scope: Scope) -> Scope:
        """Check a request; return the scope with its response."""
        if when.kind in ("grpc", "publish"):
            self.not_yet(f"`when {when.kind}`", when.at)
        elif when.kind in ("run", "trace"):
            for option in when.options:
                self.problem("misplaced", f"`{option.kind}` belongs to a request over HTTP", option.at)
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
        if when.name is None:
            return scope
        return replace(scope, requests=scope.requests | {when.name.text})

    def option(self, option: s.Option, scope: Scope) -> None:
        if option.kind == "header" and option.key is not None and option.key.plain.lower() == "traceparent":
            self.problem("misplaced", "`traceparent` is sent by spanproof, which must know the trace", option.at)
        match option.kind:
            case "repeat" | "file":
                self.not_yet(f"`{option.kind}`", option.at)
            case "timeout":
                self.expect(option.value, scope, "duration", "`timeout`")  # type: ignore[arg-type]
            case "json" | "form":
                self.json(option.value, scope)
            case _:
                self.types.of(option.value, scope)  # type: ignore[arg-type]  # not JSON
                self.constant(option.value, f"`{option.kind}`")  # type: ignore[arg-type]  # not JSON

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
            self.share(expectation.claim, expectation.share, scope)
        if expectation.by is not None:
            self.by(expectation, expectation.by, scope)
        if expectation.confidence is not None:
            self.confidence(expectation.confidence, scope)
            self.estimate(expectation, scope)
        if expectation.label is not None:
            self.types.check_names(expectation.label, scope)

    def share(self, claim: s.Claim, share: s.Share, scope: Scope) -> None:
        """``in OP P of traces`` needs a claim that can be made of one trace by itself."""
        self.expect(share.value, scope, "fraction", "a share of traces")
        if isinstance(claim, s.Circuit | s.NotWorse):
            self.problem("misplaced", "this is about all traces together: no share of them can be told", share.at)
        elif isinstance(claim, s.Contract) or (isinstance(claim, s.Comparison) and is_constant(claim.condition)):
            self.problem("misplaced", "this is not about traces: no share of them can be told", share.at)

    def by(self, expectation: s.Expectation, by: s.Name, scope: Scope) -> None:
        claim = expectation.claim
        if not isinstance(claim, s.Comparison | s.Every) or expectation.share or expectation.confidence:
            self.problem("misplaced", "`by` goes with a comparison or `every`, and with nothing else beside it", by.at)
            return
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

    def confidence(self, node: s.Expression, scope: Scope) -> None:
        self.expect(node, scope, "fraction", "a confidence")
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
                self.types.target(claim.to, scope, "span" if claim.to.spans == "any" else "call")
            case s.Circuit():
                self.call(claim.call, "circuit", scope)
                self.circuit(claim, scope)
            case s.Timeout():
                self.call(claim.call, "timeout", scope)
                self.expect(claim.limit, scope, "duration", "`within`")
            case s.Budget():
                self.budget(claim, scope)
            case s.NotWorse():
                self.not_worse(claim, scope)
            case s.Contract():
                self.types.check_names(claim.document, scope)

    def comparison(self, claim: s.Comparison, scope: Scope) -> None:
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

    def circuit(self, claim: s.Circuit, scope: Scope) -> None:
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

    def budget(self, claim: s.Budget, scope: Scope) -> None:
        self.expect(claim.total, scope, "duration", "a budget")
        self.twice("a part", (part for part, _ in claim.parts if isinstance(part, s.Name)))
        for _, part in claim.parts:
            self.expect(part, scope, "duration", "a part of a budget")


def _of_traces(node: s.Function) -> bool:
    return bool(node.arguments) and isinstance(node.arguments[0], s.Name) and node.arguments[0].text == "traces"


def is_estimable(node: s.Expression) -> bool:
    """Tell whether a sample bounds this: an error rate or a quantile."""
    return isinstance(node, s.Function) and (node.name in ("error_rate", "p") or v.quantile(node.name) is not None)
