"""Is a parsed proof meaningful? Collects every problem of a file before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from spanproof.query_lang import syntax as s
from spanproof.query_lang.check_claims import ClaimChecker
from spanproof.query_lang.check_requests import RequestChecker
from spanproof.query_lang.constants import is_constant
from spanproof.query_lang.diagnostics import Diagnostic, did_you_mean
from spanproof.query_lang.library import Definition, Library
from spanproof.query_lang.parse import ParsedClaim, ProofFile
from spanproof.query_lang.types import Scope, names

LEFT_OUT: Final = ("unknown-name", "nothing-expected", "no-traces", "no-baseline")


def check_file(file: ProofFile, library: Library | None = None) -> tuple[Diagnostic, ...]:
    """Return the problems of a file in the order of its text; none means that it can run.

    `library` holds what it can use of other files, and its own definitions; without one, these are all there is.
    """
    own = {item.name: Definition(file, item) for item in file.items if isinstance(item, s.Define)}
    checker = _FileChecker(library=library or Library(defines=own))
    checker.items(file.items)
    if file.diagnostics:  # what was left out of the tree must not be missed in it
        checker.found = [each for each in checker.found if each.id not in LEFT_OUT]
        checker.found += file.diagnostics
    return checker.sorted()


def check_claim(parsed: ParsedClaim, scope: Scope | None = None) -> tuple[Diagnostic, ...]:
    """Return the problems of a claim that stands by itself."""
    if parsed.diagnostics or parsed.expectation is None:
        return parsed.diagnostics
    checker = ClaimChecker()
    checker.expectation(parsed.expectation, scope or Scope())
    return checker.sorted()


@dataclass(slots=True)
class _FileChecker(RequestChecker):
    library: Library = field(default_factory=Library)

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

    def lets(self, statements: Iterable[object], *above: s.Name) -> None:
        """Check that no name is given to two values of one block."""
        self.twice("a value", (*above, *(each.name for each in statements if isinstance(each, s.Let))))
