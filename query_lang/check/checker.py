"""Checker of proof files: collects all problems of a parsed file before it runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from spanproof.query_lang.check.claims import ClaimChecker
from spanproof.query_lang.check.constants import is_constant
from spanproof.query_lang.check.declarations import read_declaration
from spanproof.query_lang.check.definitions import Definitions, LoadedDefinition
from spanproof.query_lang.check.requests import RequestChecker
from spanproof.query_lang.check.scope import Scope, make_untyped_variables
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic, suggest_names
from spanproof.query_lang.syntax.parser import ParsedClaim, ParsedFile

IGNORED_AFTER_SYNTAX_ERRORS: Final = ("unknown-name", "nothing-expected", "no-traces", "no-baseline")


def check_file(file: ParsedFile, definitions: Definitions | None = None) -> tuple[Diagnostic, ...]:
    """Return the problems of a file in the order of its text. A file without problems can run.

    `definitions` holds the file's own definitions and those of the files that it uses. By default it holds only the
    file's own.
    """
    own_definitions = {item.name: LoadedDefinition(file, item) for item in file.items if isinstance(item, s.Define)}
    checker = _FileChecker(definitions=definitions or Definitions(defines=own_definitions))
    checker.check_items(file.items)
    if file.diagnostics:  # lines with syntax errors are not in the tree
        checker.diagnostics = [
            problem for problem in checker.diagnostics if problem.id not in IGNORED_AFTER_SYNTAX_ERRORS
        ]
        checker.diagnostics += file.diagnostics
    return checker.list_diagnostics()


def check_claim(parsed: ParsedClaim, scope: Scope | None = None) -> tuple[Diagnostic, ...]:
    """Return the problems of a single claim."""
    if parsed.diagnostics or parsed.expectation is None:
        return parsed.diagnostics
    checker = ClaimChecker()
    checker.check_expectation(parsed.expectation, scope or Scope())
    return checker.list_diagnostics()


class _FileChecker(RequestChecker):
    def __init__(self, definitions: Definitions) -> None:
        super().__init__()
        self.definitions = definitions

    def check_items(self, items: tuple[s.Item, ...]) -> None:
        scope = Scope()
        for _, let in self.definitions.lets:
            scope = self.check_let(let, scope)
        self.diagnostics.clear()  # problems of another file are reported with that file
        self.check_unique_names(items)
        names: set[tuple[type, str]] = set()
        for item in items:
            if isinstance(item, s.Proof | s.Define):
                if (type(item), item.name) in names:
                    word = "proof" if isinstance(item, s.Proof) else "definition"
                    self.report("duplicate", f'a {word} "{item.name}" is already defined above', item.at)
                names.add((type(item), item.name))
            match item:
                case s.Let():
                    scope = self.check_let(item, scope)
                case s.Proof():
                    self.check_proof(item, scope)
                case s.Define():
                    self.check_define(item, scope)
                case s.Hook():
                    self.check_hook(item, scope)
                case s.Declaration():
                    self.check_declaration(item)
                case s.Use():
                    self.type_checker.check_names(item.path, Scope())

    def check_define(self, define: s.Define, scope: Scope) -> None:
        if not define.statements:
            self.report("nothing-expected", f"`{define.name}` expects nothing", define.at)
        self.check_unique_names(define.statements, *define.parameters)
        inner_scope = replace(
            scope, variables={**scope.variables, **make_untyped_variables(define.parameters)}, baseline=True
        )
        for statement in define.statements:
            if isinstance(statement, s.Expectation):
                self.check_expectation(statement, inner_scope)
            elif isinstance(statement, s.Let):
                inner_scope = self.check_let(statement, inner_scope)
            else:
                self.report("misplaced", "a definition can contain only `expect` and `let`", statement.at)

    def check_hook(self, hook: s.Hook, scope: Scope) -> None:
        self.check_unique_names(hook.statements)
        for statement in hook.statements:
            match statement:
                case s.Let():
                    scope = self.check_let(statement, scope)
                case s.When() if statement.kind != "trace":
                    scope = self.check_when(statement, scope)
                case _:
                    self.report("misplaced", f"`{hook.time}` can contain only `when` and `let`", statement.at)

    def check_declaration(self, declaration: s.Declaration) -> None:
        """Check that a declaration names a caller and a callee, and nothing else."""
        if read_declaration(declaration) is None:
            self.report(
                "misplaced", f"`{declaration.kind}` declares calls from one service to another", declaration.call.at,
                f"write `{declaration.kind} orders -> payments`",
            )  # fmt: skip

    def check_proof(self, proof: s.Proof, scope: Scope) -> None:
        if not any(isinstance(statement, s.Expectation | s.Apply) for statement in proof.statements):
            self.report("nothing-expected", f'the proof "{proof.name}" expects nothing', proof.at)
        self.check_unique_names(proof.statements)
        self.report_duplicates(
            "a request",
            (statement.name for statement in proof.statements if isinstance(statement, s.When) and statement.name),
        )
        settles = [statement for statement in proof.statements if isinstance(statement, s.SettleStatement)]
        for extra in settles[1:]:
            self.report("duplicate", "a proof has at most one `settle`", extra.at)
        has_traces = False
        for statement in proof.statements:
            match statement:
                case s.Let():
                    scope = self.check_let(statement, scope)
                case s.When():
                    scope = self.check_when(statement, scope)
                    has_traces = True
                case s.Given():
                    self.check_given(statement, scope)
                    has_traces = has_traces or not statement.baseline
                    scope = replace(scope, baseline=scope.baseline or statement.baseline)
                case s.SettleStatement():
                    self.check_constant_of_kind(statement.limit, scope, "duration", "`within`")
                    if statement.quiet is not None:
                        self.check_constant_of_kind(statement.quiet, scope, "duration", "`quiet`")
                case s.Hook():
                    self.check_hook(statement, scope)
                case s.Expectation() | s.Apply():
                    if not has_traces:
                        self.report(
                            "no-traces",
                            "no statement before this one selects the traces to judge",
                            statement.at,
                            "begin with a `when` or a `given`",
                        )
                        has_traces = True
                    if isinstance(statement, s.Apply):
                        self.check_apply(statement, scope)
                    else:
                        self.check_expectation(statement, scope)

    def check_apply(self, apply: s.Apply, scope: Scope) -> None:
        definition = self.definitions.defines.get(apply.name)
        if definition is None:
            hint = suggest_names(apply.name, self.definitions.defines)
            self.report("unknown-name", f"there is no `define {apply.name}(…)`", apply.at, hint)
            return
        wanted = len(definition.define.parameters)
        if len(apply.arguments) != wanted:
            self.report(
                "arguments", f"`{apply.name}`: {len(apply.arguments)} arguments where {wanted} were expected", apply.at
            )
        for argument in apply.arguments:
            if not isinstance(argument, s.Name) and is_constant(argument):
                self.type_checker.infer(argument, scope)
            elif not isinstance(argument, s.Name):
                self.report("arguments", "an argument is a value or the name of a service", argument.at)
        for part in s.walk(definition.define):
            if isinstance(part, s.Name) and part.text == "baseline" and not scope.baseline:
                self.report(
                    "no-baseline",
                    f"`{apply.name}` refers to the baseline, which needs a `compare baseline from …` in the same proof",
                    apply.at,
                )
                return

    def check_unique_names(self, statements: Iterable[object], *parameters: s.Name) -> None:
        """Report names that two values of one block share."""
        self.report_duplicates("a value", (*parameters, *(each.name for each in statements if isinstance(each, s.Let))))
