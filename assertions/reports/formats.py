"""The report formats, in one table: to add a format, write its module and name it here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from spanproof.assertions.reports.documents import RunDocument

# Each renderer returns the bytes of a file. A module is imported when it is used: templates and validation are slow.
FILE_FORMATS: Final = {
    "junit": "spanproof.assertions.reports.junit:render_junit",
    "json": "spanproof.assertions.reports.json_report:render_json",
    "html": "spanproof.assertions.reports.html_report:render_html",
}
# Each publisher writes where a CI runner reads: to standard output (`echo`), and to files that the runner names.
RUNNER_FORMATS: Final = {"github": "spanproof.assertions.reports.github:publish_report"}
REPORT_FORMATS: Final = (*FILE_FORMATS, *RUNNER_FORMATS)


def describe_formats() -> str:
    """Return the formats as a user writes them: ``junit=FILE, …, github``."""
    *first, last = [*(f"{name}=FILE" for name in FILE_FORMATS), *RUNNER_FORMATS]
    return f"{', '.join(first)} or {last}"


def render_report(name: str, run: RunDocument) -> bytes:
    """Return the report of a run in a file format."""
    content: bytes = _load(FILE_FORMATS[name])(run)
    return content


def publish_report(name: str, run: RunDocument, echo: Callable[[str], None]) -> None:
    """Publish the report of a run in a runner format. Raises OSError, which names the file."""
    _load(RUNNER_FORMATS[name])(run, echo)


def _load(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
