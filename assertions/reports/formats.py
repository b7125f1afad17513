"""Table of the report formats. A new format needs a module and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from spanproof.assertions.reports.documents import RunDocument

# Each renderer returns the bytes of a file. Modules are imported on use, because templates and validation load slowly.
FILE_FORMATS: Final = {
    "junit": "spanproof.assertions.reports.junit:render_junit",
    "json": "spanproof.assertions.reports.json_report:render_json",
    "html": "spanproof.assertions.reports.html_report:render_html",
}
# Each publisher writes to the places that a CI runner reads: standard output (`echo`), and files named by the runner.
RUNNER_FORMATS: Final = {"github": "spanproof.assertions.reports.github:publish_report"}
REPORT_FORMATS: Final = (*FILE_FORMATS, *RUNNER_FORMATS)


def describe_formats() -> str:
    """Return the formats as the option writes them: ``junit=FILE, …, github``."""
    *first, last = [*(f"{name}=FILE" for name in FILE_FORMATS), *RUNNER_FORMATS]
    return f"{', '.join(first)} or {last}"


def render_report(name: str, run: RunDocument) -> bytes:
    """Return the report of a run in a file format."""
    content: bytes = _load(FILE_FORMATS[name])(run)
    return content


def publish_report(name: str, run: RunDocument, echo: Callable[[str], None]) -> None:
    """Publish the report of a run in a runner format. Raises OSError with the name of the file."""
    _load(RUNNER_FORMATS[name])(run, echo)


def _load(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
