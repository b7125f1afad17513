"""A run as JSON, in a form that is kept: ``report.schema.json`` beside this describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from spanproof import __version__
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports.documents import RunDocument
from spanproof.assertions.reports.outcome_text import FLAKY

FORMAT_VERSION: Final = 1  # grows when a reader of the one before could go wrong, not when something is added


@dataclass(frozen=True, slots=True)
class Report:
    """A run of proofs. Times are integer nanoseconds, instants since the Unix epoch.

    ``format`` is the version of this form, ``counts`` says how many proofs ended how; those that are flaky are among
    those that passed.
    """

    format: int
    spanproof: str
    counts: dict[str, int]
    run: RunDocument


_REPORT_ADAPTER: Final = TypeAdapter(Report)


def render_json(run: RunDocument) -> bytes:
    """Render a run, what can be said of it in numbers first."""
    counts = {str(outcome): sum(each.outcome is outcome for each in run.proofs) for outcome in Outcome}
    counts[FLAKY] = sum(each.flaky for each in run.proofs)
    return (
        _REPORT_ADAPTER.dump_json(Report(FORMAT_VERSION, __version__, counts, run), indent=2, ensure_ascii=False)
        + b"\n"
    )


def describe_report() -> dict[str, Any]:
    """Return the schema of what is rendered, as JSON Schema."""
    schema = _REPORT_ADAPTER.json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_schema() -> str:
    """Return the text of ``report.schema.json``."""
    return json.dumps(describe_report(), indent=2) + "\n"
