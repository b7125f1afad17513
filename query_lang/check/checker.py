"""Is a parsed proof meaningful? Collects every problem of a file before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from spanproof.query_lang.check.claims import ClaimChecker
from spanproof.query_lang.check.constants import is_constant
from spanproof.query_lang.check.definitions import Definitions, LoadedDefinition
from spanproof.query_lang.check.requests import RequestChecker
from spanproof.query_lang.check.scope import Scope, make_untyped_variables
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic, suggest_names
from spanproof.query_lang.syntax.parser import ParsedClaim, ParsedFile

IGNORED_AFTER_SYNTAX_ERRORS: Final = ("unknown-name", "nothing-expected", "no-traces", "no-baseline")


def check_file(file: ParsedFile, definitions: Definitions | None = None) -> tuple[Diagnostic, ...]:
    """Return the problems of a file in the order of its text; none means that it can run.

    `library` holds what it can use of other files, and its own definitions; without one, these are all there is.
    """
    own = {item.name: LoadedDefinition(file, item) for item in file.items if isinstance(item, s.Define)}
    checker = _FileChecker(definitions=definitions or Definitions(defines=own))
    checker.check_items(file.items)
    if file.diagnostics:  # what was left out of the tree must not be missed in it
        checker.diagnostics = [each for each in checker.diagnostics if each.id not in IGNORED_AFTER_SYNTAX_ERRORS]
        checker.diagnostics += file.diagnostics
    return checker.list_diagnostics()


def check_claim(parsed: ParsedClaim, scope: Scope | None = None) -> tuple[Diagnostic, ...]:
    """Return the problems of a claim that stands by itself."""
    if parsed.diagnostics or parsed.expectation is None:
        return parsed.diagnostics
    checker = ClaimChecker()
    checker.check_expectation(parsed.expectation, scope or Scope())
    return checker.list_diagnostics()


@dataclass(slots=True)
class _FileChecker(RequestChecker):
    definitions: Definitions = field(default_factory=Definitions)

    def check_items(self, items: tuple[s.Item, ...]) -> None:
        scope = Scope()
        for _, let in self.definitions.lets:
            scope = self.check_let(let, scope)
        self.diagnostics.clear()  # what is wrong with another file is said of that file
        self.check_unique_names(items)
        seen: set[tuple[type, str]] = set()
        for item in items:
            if isinstance(item, s.Proof | s.Define):
                if (type(item), item.name) in seen:
                    word = "proof" if isinstance(item, s.Proof) else "definition"
                    self.report("duplicate", f'a {word} "{item.name}" stands above already', item.at)
                seen.add((type(item), item.name))
            match item:
                case s.Let():
                    scope = self.check_let(item, scope)
                case s.Proof():
                    self.check_proof(item, scope)
                case s.Define():
                    self.check_define(item, scope)
                case s.Hook():
                    self.check_hook(item, scope)
                case s.Use():
                    self.type_checker.check_names(item.path, Scope())

    def check_define(self, define: s.Define, scope: Scope) -> None:
        if not define.statements:
            self.report("nothing-expected", f"`{define.name}` expects nothing", define.at)
        self.check_unique_names(define.statements, *define.parameters)
        inner = replace(
            scope, variables={**scope.variables, **make_untyped_variables(define.parameters)}, baseline=True
        )
        for statement in define.statements:
            if isinstance(statement, s.Expectation):
                self.check_expectation(statement, inner)
            elif isinstance(statement, s.Let):
                inner = self.check_let(statement, inner)
            else:
                self.report("misplaced", "a definition holds `expect` and `let`", statement.at)

    def check_hook(self, hook: s.Hook, scope: Scope) -> None:
        self.check_unique_names(hook.statements)
        for statement in hook.statements:
            match statement:
                case s.Let():
                    scope = self.check_let(statement, scope)
                case s.When() if statement.kind != "trace":
                    scope = self.check_when(statement, scope)
                case _:
                    self.report("misplaced", f"`{hook.time}` holds `when` and `let`", statement.at)

    def check_proof(self, proof: s.Proof, scope: Scope) -> None:
        if not any(isinstance(statement, s.Expectation | s.Apply) for statement in proof.statements):
            self.report("nothing-expected", f'the proof "{proof.name}" expects nothing', proof.at)
        self.check_unique_names(proof.statements)
        self.report_duplicates(
            "a request", (each.name for each in proof.statements if isinstance(each, s.When) and each.name)
        )
        settles = [statement for statement in proof.statements if isinstance(statement, s.SettleStatement)]
        for extra in settles[1:]:
            self.report("duplicate", "a proof settles once", extra.at)
        chosen = False
        for statement in proof.statements:
            match statement:
                case s.Let():
                    scope = self.check_let(statement, scope)
                case s.When():
                    scope = self.check_when(statement, scope)
                    chosen = True
                case s.Given():
                    self.check_given(statement, scope)
                    chosen = chosen or not statement.baseline
                    scope = replace(scope, baseline=scope.baseline or statement.baseline)
                case s.SettleStatement():
                    self.check_constant_of_kind(statement.limit, scope, "duration", "`within`")
                    if statement.quiet is not None:
                        self.check_constant_of_kind(statement.quiet, scope, "duration", "`quiet`")
                case s.Hook():
                    self.check_hook(statement, scope)
                case s.Expectation() | s.Apply():
                    if not chosen:
                        self.report(
                            "no-traces",
                            "nothing before this says which traces to judge",
                            statement.at,
                            "begin with a `when` or a `given`",
                        )
                        chosen = True
                    if isinstance(statement, s.Apply):
                        self.check_apply(statement, scope)
                    else:
                        self.check_expectation(statement, scope)

    def check_apply(self, apply: s.Apply, scope: Scope) -> None:
        definition = self.definitions.defines.get(apply.name)
        if definition is None:
            hint = suggest_names(apply.name, self.definitions.defines)
            self.report("unknown-name", f"no `define {apply.name}(…)` is there", apply.at, hint)
            return
        wanted = len(definition.define.parameters)
        if len(apply.arguments) != wanted:
            self.report("arguments", f"`{apply.name}` takes {wanted}, and {len(apply.arguments)} are given", apply.at)
        for argument in apply.arguments:
            if not isinstance(argument, s.Name) and is_constant(argument):
                self.type_checker.infer(argument, scope)
            elif not isinstance(argument, s.Name):
                self.report("arguments", "an argument is a value or the name of a service", argument.at)
        for part in s.walk(definition.define):
            if isinstance(part, s.Name) and part.text == "baseline" and not scope.baseline:
                self.report(
                    "no-baseline",
                    f"`{apply.name}` speaks of the baseline, which needs a `compare baseline from …` in the same proof",
                    apply.at,
                )
                return

    def check_unique_names(self, statements: Iterable[object], *parameters: s.Name) -> None:
        """Check that no name is given to two values of one block."""
        self.report_duplicates("a value", (*parameters, *(each.name for each in statements if isinstance(each, s.Let))))
