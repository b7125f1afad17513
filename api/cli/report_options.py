"""``--report``: which reports a run writes, and where."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from spanproof.api.cli.atomic_files import write_atomically
from spanproof.assertions.reports.documents import RunDocument
from spanproof.query_lang.syntax.diagnostics import suggest_names

STEP_SUMMARY_VARIABLE: Final = "GITHUB_STEP_SUMMARY"


class ReportFormat(StrEnum):
    """The forms of a report."""

    JUNIT = "junit"
    JSON = "json"
    HTML = "html"
    GITHUB = "github"


@dataclass(frozen=True, slots=True)
class ReportTarget:
    """A report to be written: to a file, or, for GitHub, to where its runner reads."""

    report_format: ReportFormat
    path: Path | None


def read_report_targets(texts: Iterable[str]) -> tuple[ReportTarget, ...]:
    """Read ``junit=FILE,json=FILE,html=FILE,github``, in one text or several. Raises ValueError."""
    found: list[ReportTarget] = []
    for part in ",".join(texts).split(",") if texts else ():
        word, equals, name = part.strip().partition("=")
        if word not in list(ReportFormat):
            raise ValueError(
                f"--report: {word!r} is no report; {suggest_names(word, ReportFormat) or f'write {_describe_usage()}'}"
            )
        form = ReportFormat(word)
        if form is ReportFormat.GITHUB:
            if equals:
                raise ValueError("--report: github writes to where its runner reads; it takes no file")
            found.append(ReportTarget(form, None))
            continue
        if not name:
            raise ValueError(f"--report: {form} needs a file: {form}=FILE")
        path = Path(name)
        if path.is_dir():
            raise ValueError(f"--report: {name} is a folder")
        if not path.parent.is_dir():
            raise ValueError(f"--report: {path.parent}: no such folder")
        found.append(ReportTarget(form, path))
    paths = [each.path.resolve() for each in found if each.path]
    if len(set(paths)) < len(paths):
        raise ValueError("--report: two reports go to one file")
    return tuple(dict.fromkeys(found))


def write_reports(targets: Iterable[ReportTarget], run: RunDocument, echo: Callable[[str], None]) -> None:
    """Write reports of a run; what GitHub reads from the output is said. Raises ValueError, once all were tried."""
    problems = []
    for target in targets:
        try:
            _write_report(target, run, echo)
        except OSError as error:
            problems.append(f"{target.path or STEP_SUMMARY_VARIABLE}: {error.strerror}")
    if problems:
        raise ValueError("; ".join(f"--report: {problem}" for problem in problems))


def _write_report(target: ReportTarget, run: RunDocument, echo: Callable[[str], None]) -> None:
    if target.path is None:
        from spanproof.assertions.reports.github import render_annotations, render_step_summary

        echo(render_annotations(run))
        if summary := os.environ.get(STEP_SUMMARY_VARIABLE):
            with Path(summary).open("a", encoding="utf-8") as file:  # other steps have written there
                file.write(render_step_summary(run))
        return
    write_atomically(target.path, _render_report(target.report_format, run))


def _render_report(report_format: ReportFormat, run: RunDocument) -> bytes:
    # each is imported where it is wanted: templates take a while
    if report_format is ReportFormat.JUNIT:
        from spanproof.assertions.reports.junit import render_junit

        return render_junit(run)
    if report_format is ReportFormat.JSON:
        from spanproof.assertions.reports.json_report import render_json

        return render_json(run)
    from spanproof.assertions.reports.html_report import render_html

    return render_html(run)


def _describe_usage() -> str:
    return "junit=FILE, json=FILE, html=FILE or github"
