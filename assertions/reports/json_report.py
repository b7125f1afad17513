"""Report as JSON in a stable format; ``report.schema.json`` in this folder describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from spanproof import __version__
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports.documents import RunDocument
from spanproof.assertions.reports.outcome_text import FLAKY

FORMAT_VERSION: Final = 1  # increases with incompatible changes, not with additions


@dataclass(frozen=True, slots=True)
class Report:
    """A run of proofs. Times are integer nanoseconds, instants since the Unix epoch.

    ``format`` is the version of the format. ``counts`` maps outcomes to numbers of proofs; flaky proofs also count as
    passed.
    """

    format: int
    spanproof: str
    counts: dict[str, int]
    run: RunDocument


_REPORT_ADAPTER: Final = TypeAdapter(Report)


def render_json(run: RunDocument) -> bytes:
    """Render a run, with the counts first."""
    counts = {str(outcome): sum(each.outcome is outcome for each in run.proofs) for outcome in Outcome}
    counts[FLAKY] = sum(each.flaky for each in run.proofs)
    return (
        _REPORT_ADAPTER.dump_json(Report(FORMAT_VERSION, __version__, counts, run), indent=2, ensure_ascii=False)
        + b"\n"
    )


def describe_report() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    schema = _REPORT_ADAPTER.json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_schema() -> str:
    """Return the text of ``report.schema.json``."""
    return json.dumps(describe_report(), indent=2) + "\n"
