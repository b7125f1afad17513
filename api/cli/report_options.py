"""``--report``: which reports a run writes, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from msgspec import Struct

from spanproof.api.cli.atomic_files import write_atomically

if TYPE_CHECKING:
    from spanproof.assertions.reports.documents import RunDocument

ReportOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--report",
        metavar="FORMAT=FILE,…",
        envvar="SPANPROOF_REPORT",
        help="Write reports: junit=FILE, json=FILE, html=FILE, github; may be repeated.",
    ),
]


class ReportTarget(Struct, frozen=True):
    """A report to write: its format, and its file; a format that a CI runner reads has none."""

    report_format: str
    path: Path | None


def read_report_targets(texts: Iterable[str]) -> tuple[ReportTarget, ...]:
    """Read ``junit=FILE,json=FILE,html=FILE,github``, in one text or several. Raises ValueError."""
    parts = [part.strip() for part in ",".join(texts).split(",")] if texts else []
    if not parts:
        return ()
    from spanproof.assertions.reports.formats import REPORT_FORMATS, RUNNER_FORMATS, describe_formats
    from spanproof.query_lang.syntax.diagnostics import suggest_names

    targets: list[ReportTarget] = []
    for part in parts:
        name, equals, file = part.partition("=")
        if name not in REPORT_FORMATS:
            remedy = suggest_names(name, REPORT_FORMATS) or f"write {describe_formats()}"
            raise ValueError(f"--report: {name!r} is not a report format; {remedy}")
        if name in RUNNER_FORMATS:
            if equals:
                raise ValueError(f"--report: {name} writes where its runner reads; it takes no file")
            targets.append(ReportTarget(name, None))
            continue
        if not file:
            raise ValueError(f"--report: {name} needs a file: {name}=FILE")
        path = Path(file)
        if path.is_dir():
            raise ValueError(f"--report: {file} is a folder")
        if not path.parent.is_dir():
            raise ValueError(f"--report: {path.parent}: no such folder")
        targets.append(ReportTarget(name, path))
    paths = [target.path.resolve() for target in targets if target.path]
    if len(set(paths)) < len(paths):
        raise ValueError("--report: two reports have the same file")
    return tuple(dict.fromkeys(targets))


def write_reports(targets: Iterable[ReportTarget], run: RunDocument, echo: Callable[[str], None]) -> None:
    """Write the reports of a run. Raises ValueError after all were tried, if one failed."""
    from spanproof.assertions.reports.formats import publish_report, render_report

    problems = []
    for target in targets:
        try:
            if target.path is None:
                publish_report(target.report_format, run, echo)
            else:
                write_atomically(target.path, render_report(target.report_format, run))
        except OSError as error:
            problems.append(f"{target.path or error.filename}: {error.strerror}")
    if problems:
        raise ValueError("; ".join(f"--report: {problem}" for problem in problems))
