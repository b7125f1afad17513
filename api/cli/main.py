"""The command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from spanproof import __version__
from spanproof.api.cli.console import (
    EXIT_NOTHING_SELECTED,
    EXIT_USAGE,
    exit_with_error,
    load_modules,
    make_console,
    print_diagnostics,
    read_choice,
    read_or_exit,
)
from spanproof.api.cli.option_groups import add_option_group
from spanproof.api.cli.receiver_options import ReceiverOptionGroup
from spanproof.api.cli.retention_options import KeepBelow, KeepFor, Memory, read_memory_bytes, read_retention_limits
from spanproof.api.cli.rule_options import CircuitMarkers, ClockSkew, Proxies, RetryGap
from spanproof.api.cli.run_options import ReportOption, RunOptionGroup
from spanproof.api.commands import query as asking
from spanproof.api.commands.init import init
from spanproof.api.commands.migrate import migrate
from spanproof.assertions.reports.terminal import render_diagnostics
from spanproof.assertions.run.proof_files import ProofSelection
from spanproof.assertions.run.settings import read_rules
from spanproof.collector.user_errors import UserError
from spanproof.query_lang.check.modules import ProofModule

# What a command alone needs is imported in it: `spanproof check` must not wait for DuckDB and gRPC.

app = typer.Typer(
    help="Turns the traces that services emit into proofs about their requests.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Database = Annotated[
    str, typer.Option("--db", metavar="FILE", envvar="SPANPROOF_DB", help="DuckDB file for the spans.")
]


def main() -> NoReturn:
    """Run the command line; usage errors and whatever else a user can mend are one line and an exit code."""
    try:
        app()
    except UserError as error:
        exit_with_error(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # what DuckDB makes of Ctrl-C
            raise
        sys.exit(130)
    sys.exit(0)


@app.callback(invoke_without_command=True)
def spanproof(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False
) -> None:
    """Turns the traces that services emit into proofs about their requests."""
    if version:
        typer.echo(f"spanproof {__version__}")
        raise typer.Exit


@app.command(
    epilog='Example: spanproof run checks -k checkout --var base="http://127.0.0.1:8080" --report html=report.html'
)
@add_option_group("receiving", ReceiverOptionGroup)
@add_option_group("carrying", RunOptionGroup)
def run(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Proof files or folders of them.")
    ] = None,
    *,
    keyword: Annotated[str | None, typer.Option("-k", help="Only proofs with this in their name.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only proofs with this tag; may be repeated.")] = None,
    proxy: Proxies = None,
    max_retry_gap: RetryGap = "60s",
    max_clock_skew: ClockSkew = "10ms",
    circuit_marker: CircuitMarkers = None,
    db: Database = ":memory:",
    carrying: RunOptionGroup,
    receiving: ReceiverOptionGroup,
) -> None:
    """Receive spans, send the requests of proofs and judge their traces."""
    from spanproof.api.cli.report_options import read_report_targets

    try:
        reports = read_report_targets(carrying.report or ())
        variables, secrets = carrying.read_variables()
        options = receiving.make_receiver_options()
        rules = read_rules(proxy or (), max_retry_gap, max_clock_skew, circuit_marker or ())
    except ValueError as error:
        exit_with_error(str(error))
    from spanproof.api.commands.run import RunPlan, run_proofs

    modules = load_modules(paths or [Path()])
    if print_diagnostics(modules):
        sys.exit(EXIT_USAGE)
    asked = RunPlan(ProofSelection(keyword, frozenset(tag or ())), carrying, reports, variables, secrets)
    proofs = asked.select_proofs(modules)
    if not proofs:
        exit_with_error("no proof is selected", EXIT_NOTHING_SELECTED)
    try:
        code = run_proofs(
            proofs, asked, make_console(), db=db, rules=rules, receiver_group=receiving, options=options,
            watched=paths or [Path()],
        )  # fmt: skip
    except ValueError as error:
        exit_with_error(str(error))
    sys.exit(code)


@app.command(epilog="Example: spanproof check checks --db spans.duckdb")
def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Proof files or folders of them.")
    ] = None,
    *,
    db: Annotated[
        str | None,
        typer.Option("--db", metavar="FILE", help="A store: warn of services and attributes that it has not seen."),
    ] = None,
) -> None:
    """Check proofs without sending anything: syntax, names, types, units."""
    modules = load_modules(paths or [Path()])
    problems = print_diagnostics(modules)
    proofs = sum(len(module.proofs) for module in modules)
    warnings = "" if db is None else f", {print_unknown_names(modules, db)} warnings"
    make_console().print(f"{len(modules)} files, {proofs} proofs, {problems} problems{warnings}")
    sys.exit(EXIT_USAGE if problems else 0)


def print_unknown_names(modules: list[ProofModule], db: str) -> int:
    """Print what files name that a store has not seen; return how many names these are."""
    from spanproof.collector.traces.catalog import read_catalog
    from spanproof.query_lang.check.unknown_names import find_unknown_names

    if not Path(db).exists():
        exit_with_error(f"{db}: no such file")
    seen = read_catalog(db)
    count = 0
    for module in modules:
        found = find_unknown_names(module, seen)
        count += len(found)
        if found:
            make_console().print(render_diagnostics(module.file.path, module.file.text, found))
    return count


@app.command(name="fmt", epilog="Example: spanproof fmt --check checks")
def format_(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Proof files or folders of them.")
    ] = None,
    *,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; leave with 1 if something would change.")
    ] = False,
) -> None:
    """Lay proof files out in the one way there is."""
    from spanproof.query_lang.syntax.formatter import format_file

    modules = load_modules(paths or [Path()])
    unreadable = [module for module in modules if module.file.diagnostics]
    if print_diagnostics(unreadable):
        sys.exit(EXIT_USAGE)
    changed = [module.file for module in modules if format_file(module.file) != module.file.text]
    for file in changed:
        if not check_only:
            Path(file.path).write_text(format_file(file), encoding="utf-8", newline="\n")
        typer.echo(f"{'would lay out' if check_only else 'laid out'} {file.path}")
    typer.echo(f"{len(modules)} files, {len(changed)} {'to change' if check_only else 'changed'}")
    sys.exit(1 if check_only and changed else 0)


@app.command(epilog="Example: spanproof lsp --db spans.duckdb (an editor starts it)")
def lsp(
    *,
    db: Annotated[
        str | None, typer.Option("--db", metavar="FILE", help="A store, to complete the services it has seen.")
    ] = None,
) -> None:
    """Serve an editor: problems, completion, explanations and layout, over standard input and output."""
    try:
        from spanproof.api.commands.lsp import serve as serve_editor
    except ImportError as error:
        exit_with_error(
            f"the language server needs its extra packages ({error.name} is missing): pip install 'spanproof[lsp]'"
        )
    if db is not None and not Path(db).exists():
        exit_with_error(f"{db}: no such file")
    serve_editor(db)


@app.command(epilog="Example: spanproof serve --db spans.duckdb")
@add_option_group("receiving", ReceiverOptionGroup)
def serve(
    *,
    proxy: Proxies = None,
    max_retry_gap: RetryGap = "60s",
    max_clock_skew: ClockSkew = "10ms",
    circuit_marker: CircuitMarkers = None,
    db: Database = "spanproof.duckdb",
    keep_for: KeepFor = None,
    keep_below: KeepBelow = None,
    memory: Memory = "512MB",
    api: Annotated[
        str,
        typer.Option("--api", metavar="HOST:PORT", envvar="SPANPROOF_API", help="HTTP API; port 0 takes a free one."),
    ] = "127.0.0.1:8321",
    allow_target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT", help="Send requests of proofs that come over the API to this host; may be repeated."
        ),
    ] = None,
    proofs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", envvar="SPANPROOF_PROOFS", help="Proof files that runs and gates over the API may name."
        ),
    ] = None,
    trace_self: Annotated[
        str | None,
        typer.Option(
            metavar="URL|env",
            help="Export spans of its own work to this OTLP/gRPC endpoint, or the one in OTEL_EXPORTER_OTLP_ENDPOINT.",
        ),
    ] = None,
    receiving: ReceiverOptionGroup,
) -> None:
    """Receive and keep spans, and answer questions about them, until stopped."""
    from spanproof.api.server.self_tracing_endpoint import read_trace_self_endpoint
    from spanproof.api.server.server import Server
    from spanproof.assertions.triggers.allowed_targets import read_allowed_targets

    try:
        options = receiving.make_receiver_options(api)
        targets = read_allowed_targets(allow_target or [])
        limits = read_retention_limits(keep_for, keep_below, db)
        memory_bytes = read_memory_bytes(memory)
        endpoint = None if trace_self is None else read_trace_self_endpoint(trace_self)
        rules = read_rules(proxy or (), max_retry_gap, max_clock_skew, circuit_marker or ())
    except ValueError as error:
        exit_with_error(str(error))
    if proofs is not None and not proofs.is_dir():
        exit_with_error(f"--proofs: {proofs}: no such folder")
    server = Server(
        db,
        receiving.otlp_grpc,
        receiving.otlp_http,
        api,
        options,
        rules,
        limits,
        targets,
        memory_bytes,
        endpoint,
        proofs,
    )
    server.run(lambda line: typer.echo(line))


@app.command(epilog="Example: spanproof case tests/cases/*.case")
def case(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Case files.")],
) -> None:
    """Run case files: traces, claims and the verdicts they must get, in one text."""
    from spanproof.assertions.cases.case_file import CaseError
    from spanproof.assertions.cases.case_runner import run_cases

    claims, differences = 0, 0
    for path in files:
        text = read_or_exit(path, lambda path: path.read_text(encoding="utf-8-sig"))
        try:
            for result in run_cases(text):
                claims += 1
                if result.difference is not None:
                    differences += 1
                    typer.echo(f"{path}:{result.assertion.line}: {result.assertion.claim}\n    {result.difference}")
                    typer.echo(f"    ({result.variation})")
        except CaseError as error:
            exit_with_error(f"{path}: {error}")
    typer.echo(f"{len(files)} files, {claims} judgements, {differences} differences")
    sys.exit(1 if differences else 0)


app.command(epilog="Example: spanproof trace 4bf92f3577b34da6a3ce929d0e0e4736 --db spans.duckdb")(asking.trace)
app.command(epilog="Example: spanproof query 'p95(duration(gateway)) by http.route over last 1h'")(asking.query)

app.command(epilog="Example: spanproof gate deploy.proof --var version=1.4.2 --for 15m --every 30s --until-decided")(
    asking.gate
)


@app.command(epilog="Example: spanproof completion bash > ~/.local/share/bash-completion/completions/spanproof")
def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|fish|zsh", help="Which shell is to complete.")],
) -> None:
    """Print what a shell needs to complete commands and options."""
    from spanproof.api.cli.command_tree import read_commands
    from spanproof.api.commands.completion import SHELLS

    if shell not in SHELLS:
        exit_with_error(f"a shell is one of {', '.join(SHELLS)}, not {shell!r}")
    typer.echo(SHELLS[shell](read_commands(app)), nl=False)


app.command(epilog="Example: spanproof init http://127.0.0.1:8080/orders/42")(init)
app.add_typer(migrate, name="migrate")


@app.command(name="import", epilog="Example: spanproof import traces/*.json --db spans.duckdb")
def import_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Of OTLP (JSON or protobuf), Jaeger or Zipkin; gzip too.")
    ],
    *,
    file_format: Annotated[
        str | None, typer.Option("--format", metavar="otlp-json|otlp-proto|jaeger|zipkin", help="Do not guess it.")
    ] = None,
    db: Database = "spanproof.duckdb",
) -> None:
    """Store the spans of files, each of them whole or not at all."""
    from spanproof.api.commands.import_export import import_files
    from spanproof.collector.formats.read_file import ImportFormat

    told = None if file_format is None else read_choice("--format", file_format, ImportFormat)
    sys.exit(import_files(files, db, told, typer.echo))


@app.command(
    epilog="Example: spanproof export failing.jsonl --trace 4bf92f3577b34da6a3ce929d0e0e4736 --db spans.duckdb"
)
def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Ends in .jsonl, .pb or .parquet; - is standard output.")],
    *,
    trace_ids: Annotated[
        list[str] | None, typer.Option("--trace", metavar="ID", help="Only this trace; may be repeated.")
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", metavar="otlp-json|otlp-proto|parquet", help="Whatever the name says.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
    db: Database = "spanproof.duckdb",
) -> None:
    """Write stored spans to a file: OTLP in JSON lines or length-delimited protobuf, or Parquet."""
    from spanproof.api.commands.import_export import export_spans
    from spanproof.collector.formats.export_file import ExportFormat
    from spanproof.collector.otlp.encoder import parse_trace_id

    told = None if file_format is None else read_choice("--format", file_format, ExportFormat)
    try:
        chosen = [parse_trace_id(each) for each in trace_ids or []]
    except ValueError as error:
        exit_with_error(f"--trace: {error}")
    if not Path(db).exists():
        exit_with_error(f"{db}: no such file")
    typer.echo(export_spans(file, db, told, chosen, overwrite=force), err=True)


@app.command(epilog="Example: spanproof demo --report html=demo.html")
def demo(
    proofs: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Other proofs than the shop's.")
    ] = None,
    *,
    report: ReportOption = None,
) -> None:
    """Start the demo shop, prove things about it, and stop it."""
    from spanproof.api.cli.report_options import read_report_targets
    from spanproof.api.commands.demo import PROOFS_FOLDER, run_demo

    try:
        reports = read_report_targets(report or ())
        modules = load_modules(proofs or [PROOFS_FOLDER])
        if print_diagnostics(modules):
            sys.exit(EXIT_USAGE)
        code = run_demo(modules, reports, make_console())
    except ValueError as error:
        exit_with_error(str(error))
    sys.exit(code)
