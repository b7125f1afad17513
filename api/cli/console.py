"""Console input and output of the commands: reading proof files, printing diagnostics."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanproof.api.cli.exits import EXIT_NOTHING_SELECTED, exit_with_error, read_or_exit

if TYPE_CHECKING:
    from rich.console import Console

    from spanproof.query_lang.load.modules import ProofModule


def make_console(*, stderr: bool = False) -> Console:
    """Return a console for reports, without markup and line wrapping."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False, soft_wrap=True)


def print_diagnostics(modules: list[ProofModule]) -> int:
    """Print the diagnostics of proof files; return their number."""
    count = sum(len(module.diagnostics) for module in modules)
    if count:
        from spanproof.assertions.reports.terminal import render_diagnostics

        console = make_console()
        for module in modules:
            if module.diagnostics:
                console.print(render_diagnostics(module.file.path, module.file.text, module.diagnostics))
    return count


def print_server_diagnostics(path: str, diagnostics: Iterable[Mapping[str, Any]]) -> None:
    """Print the diagnostics in a server's answer; their source lines are on the server."""
    from spanproof.assertions.reports.terminal import render_position

    console = make_console()
    for each in diagnostics:
        position = f"{path}:{each['line']}:{each['column']}"
        console.print(render_position(f"error[{each['id']}]", each["message"], position, each["help"]))


def exit_on_variable_problems(modules: Iterable[ProofModule], variables: Collection[str]) -> None:
    """Exit if a variable from outside is read by no proof, or one that proofs need is missing."""
    from spanproof.query_lang.load.outside_variables import find_variable_problems

    problems = list(find_variable_problems(modules, variables))
    if problems:
        exit_with_error("; ".join(problems))


def load_modules(paths: list[Path]) -> list[ProofModule]:
    """Read the proof files that `paths` name; exit if there are none."""
    from spanproof.assertions.run.proof_files import find_proof_files, read_module

    try:
        files = find_proof_files(paths)
    except OSError as error:
        exit_with_error(str(error))
    modules = [read_or_exit(path, read_module) for path in files]
    if not modules:
        exit_with_error(f"no proof file in {', '.join(str(path) for path in paths)}", EXIT_NOTHING_SELECTED)
    return modules
