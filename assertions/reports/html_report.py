"""Report as one self-contained HTML page: proofs, evidence, waterfalls, waiting times."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from spanproof import __version__
from spanproof.assertions.explain.source_excerpts import ExcerptLine
from spanproof.assertions.explain.text_formatting import (
    format_count,
    format_seconds,
    format_short_duration,
    format_span_duration,
)
from spanproof.assertions.explain.trace_evidence import SpanView, TraceView
from spanproof.assertions.reports.documents import RunDocument
from spanproof.assertions.reports.outcome_text import (
    format_proof_counts,
    format_rerun_command,
    format_verdict_counts,
    list_further_groups,
    name_outcome,
)
from spanproof.assertions.reports.terminal import OUTCOME_SIGNS, draw_marks

_BACKTICKS: Final = re.compile("`([^`]+)`")
_OUTCOMES: Final = ("fail", "error", "inconclusive", "flaky", "pass")


def render_html(run: RunDocument) -> bytes:
    """Render a run. The page loads no other resources and runs only its own script."""
    script = _read_template_file("report.js")
    names = [name_outcome(proof) for proof in run.proofs]
    page = _load_template().render(
        run=run,
        version=__version__,
        style=Markup(_read_template_file("report.css")),  # noqa: S704 (our own file)
        script=Markup(script),  # noqa: S704 (our own file)
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        counts=format_proof_counts([each.outcome for each in run.proofs], sum(each.flaky for each in run.proofs)),
        filters=[(name, names.count(name)) for name in _OUTCOMES if name in names],
        started=datetime.fromtimestamp(run.started_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        took=None if run.ended_ns is None else format_seconds(run.ended_ns - run.started_ns),
    )
    return page.encode()


@cache
def _load_template() -> Template:
    environment = Environment(
        loader=PackageLoader("spanproof.assertions.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count_verdicts": lambda verdicts: ", ".join(format_verdict_counts(verdicts)),
        "draw_excerpt": _draw_excerpt,
        "further_groups": list_further_groups,
        "name_outcome": name_outcome,
        "place_bar": _make_bar_style,
        "quoted": _render_code_spans,
        "rerun": format_rerun_command,
        "seconds": format_seconds,
        "short": format_short_duration,
        "span_duration": format_span_duration,
        "sign": OUTCOME_SIGNS.__getitem__,
    }
    environment.globals |= {"count": format_count}
    return environment.get_template("report.html")


@cache
def _read_template_file(name: str) -> str:
    return resources.files("spanproof.assertions.reports").joinpath("templates", name).read_text(encoding="utf-8")


def _draw_excerpt(excerpt: tuple[ExcerptLine, ...]) -> str:
    width = max(len(str(line.number)) for line in excerpt)
    rows = []
    for line in excerpt:
        rows.append(f"{line.number:>{width}} | {line.text}")
        rows += [f"{'':>{width}} | {marks}" for marks in draw_marks(line)]
    return "\n".join(rows)


def _render_code_spans(text: str) -> Markup:
    """Return a text with its backticked parts as code elements."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(_BACKTICKS.split(text))
    )


def _make_bar_style(span: SpanView, trace: TraceView) -> str:
    """Return the start and width of a span's bar, in percent of the trace, as CSS variables.

    The bar of a span that has not ended reaches to the end of the trace.
    """
    total = max(trace.duration_ns, 1)
    start = min(max(100 * (span.start_ns - trace.start_ns) / total, 0), 99.5)
    duration_ns = total if span.duration_ns is None else span.duration_ns
    width = min(max(100 * duration_ns / total, 0.5), 100 - start)
    return f"--start: {start:.2f}%; --width: {width:.2f}%"
