"""``--report``: which reports a run writes, and where."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from spanproof.api.whole_files import write_whole
from spanproof.assertions.documents import RunDocument
from spanproof.query_lang.diagnostics import did_you_mean

SUMMARY: Final = "GITHUB_STEP_SUMMARY"


class Form(StrEnum):
    """The forms of a report."""

    JUNIT = "junit"
    JSON = "json"
    HTML = "html"
    GITHUB = "github"


@dataclass(frozen=True, slots=True)
class ReportTarget:
    """A report to be written: to a file, or, for GitHub, to where its runner reads."""

    form: Form
    path: Path | None


def read_reports(texts: Iterable[str]) -> tuple[ReportTarget, ...]:
    """Read ``junit=FILE,json=FILE,html=FILE,github``, in one text or several. Raises ValueError."""
    found: list[ReportTarget] = []
    for part in ",".join(texts).split(",") if texts else ():
        word, equals, name = part.strip().partition("=")
        if word not in list(Form):
            raise ValueError(f"--report: {word!r} is no report; {did_you_mean(word, Form) or f'write {_usage()}'}")
        form = Form(word)
        if form is Form.GITHUB:
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


def write_reports(targets: Iterable[ReportTarget], run: RunDocument, say: Callable[[str], None]) -> None:
    """Write reports of a run; what GitHub reads from the output is said. Raises ValueError, once all were tried."""
    problems = []
    for target in targets:
        try:
            _write(target, run, say)
        except OSError as error:
            problems.append(f"{target.path or SUMMARY}: {error.strerror}")
    if problems:
        raise ValueError("; ".join(f"--report: {problem}" for problem in problems))


def _write(target: ReportTarget, run: RunDocument, say: Callable[[str], None]) -> None:
    if target.path is None:
        from spanproof.assertions.reports.github import render_annotations, render_step_summary

        say(render_annotations(run))
        if summary := os.environ.get(SUMMARY):
            with Path(summary).open("a", encoding="utf-8") as file:  # other steps have written there
                file.write(render_step_summary(run))
        return
    write_whole(target.path, _render(target.form, run))


def _render(form: Form, run: RunDocument) -> bytes:
    # each is imported where it is wanted: templates take a while
    if form is Form.JUNIT:
        from spanproof.assertions.reports.junit import render_junit

        return render_junit(run)
    if form is Form.JSON:
        from spanproof.assertions.reports.json_report import render_json

        return render_json(run)
    from spanproof.assertions.reports.html_report import render_html

    return render_html(run)


def _usage() -> str:
    return "junit=FILE, json=FILE, html=FILE or github"
