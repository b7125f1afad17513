"""Answers to queries as JSON, CSV, Arrow, or a table of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

import pyarrow as pa
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

from spanproof.assertions.explain import units
from spanproof.assertions.explain.text_formatting import format_count
from spanproof.assertions.judge.query_answers import QueryAnswer
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.instants import format_instant
from spanproof.query_lang.syntax.vocabulary import ValueType

# UCUM units, as in OpenTelemetry's metrics; a fraction has no unit
_UCUM_UNITS = {"duration": "ns", "rate": "1/s"}
_KINDS_BY_UNIT = {unit: kind for kind, unit in _UCUM_UNITS.items()}


class GroupDocument(BaseModel):
    """One number: of the group with the values in ``key``, in the time step that begins at ``at_ns``."""

    key: dict[str, str | None]
    at_ns: int | None = None
    n: int
    value: int | float | None


class AnswerDocument(BaseModel):
    """The answer to a query; ``incomplete`` of its ``traces`` lack spans, and ``growing`` others are left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "unit": "ns",
                    "n": 1234,
                    "traces": 1200,
                    "incomplete": 0,
                    "growing": 1,
                    "unfinished": 2,
                    "forgotten_until_ns": None,
                    "hint": None,
                    "groups": [
                        {"key": {"resource.service.version": "1.4.2"}, "at_ns": None, "n": 1234, "value": 391000000}
                    ],
                }
            ]
        }
    )

    unit: str = Field(description="`ns`, `1/s`, or `1` for counts, fractions and other numbers")
    n: int
    traces: int
    incomplete: int
    growing: int = Field(default=0, description="Traces of which spans still arrive; they are left out")
    unfinished: int = Field(
        default=0, description="Values that are unknown because a span has not ended; they are left out"
    )
    forgotten_until_ns: int | None = Field(
        default=None, description="Traces of the window that began up to this time were deleted"
    )
    hint: str | None = Field(default=None, description="If nothing matched: the nearest services or operations")
    groups: list[GroupDocument]

    @classmethod
    def from_answer(cls, answer: QueryAnswer, query: s.MetricQuery) -> Self:
        """Return the document of an answer."""
        by = [field.text for field in query.by]
        groups = [
            GroupDocument(key=dict(zip(by, each.key, strict=True)), at_ns=each.at_ns, n=each.n, value=each.value)
            for each in answer.groups
        ]
        unit = _UCUM_UNITS.get(answer.type.kind, "1")
        return cls(
            unit=unit,
            n=answer.n,
            traces=answer.traces,
            incomplete=answer.incomplete,
            growing=answer.growing,
            unfinished=answer.unfinished,
            forgotten_until_ns=answer.forgotten_until_ns,
            hint=answer.hint,
            groups=groups,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Notes about traces and values that are missing from the numbers, and about names that do not exist."""
        growing, unfinished, until_ns = self.growing, self.unfinished, self.forgotten_until_ns
        return (
            *([f"{format_count(growing, 'trace')} not complete yet, left out"] if growing else []),
            *([f"{format_count(unfinished, 'value')} left out, as spans have not ended"] if unfinished else []),
            *([f"traces of the window up to {format_instant(until_ns)} were deleted"] if until_ns is not None else []),
            *([f"nothing matched: {self.hint}"] if self.hint else []),
        )


class AnswerFormat(Struct, frozen=True):
    """A format for answers."""

    media_type: str
    render: Callable[[AnswerDocument], bytes]


def _make_columns(document: AnswerDocument) -> dict[str, list[object]]:
    names = list(document.groups[0].key) if document.groups else []
    columns: dict[str, list[object]] = {name: [each.key[name] for each in document.groups] for name in names}
    if any(each.at_ns is not None for each in document.groups):
        columns["at_ns"] = [each.at_ns for each in document.groups]
    columns["n"] = [each.n for each in document.groups]
    columns["value"] = [each.value for each in document.groups]
    return columns


def _render_csv(document: AnswerDocument) -> bytes:
    columns = _make_columns(document)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def _render_arrow(document: AnswerDocument) -> bytes:
    columns = _make_columns(document)
    whole = all(value is None or isinstance(value, int) for value in columns["value"])
    numbers = {"at_ns": pa.int64(), "n": pa.int64(), "value": pa.int64() if whole else pa.float64()}
    table = pa.table(
        {name: pa.array(values, numbers.get(name, pa.string())) for name, values in columns.items()}
    ).replace_schema_metadata({"unit": document.unit})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _render_table(document: AnswerDocument) -> bytes:
    type_ = ValueType(_KINDS_BY_UNIT.get(document.unit, "number"))  # type: ignore[arg-type]  # a literal type, of which these are members
    columns = _make_columns(document)
    if "at_ns" in columns:
        columns["at_ns"] = [_format_instant(each.at_ns) for each in document.groups]
    columns["value"] = [units.format_value(each.value, type_) for each in document.groups]
    rows = [["at" if name == "at_ns" else name for name in columns]]
    rows += [["-" if each is None else str(each) for each in row] for row in zip(*columns.values(), strict=True)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = f", {document.incomplete} of them incomplete" if document.incomplete else ""
    notes = "; ".join([f"of {format_count(document.traces, 'trace')}{notes}", *document.warnings])
    return "\n".join([*lines, notes, ""]).encode()


def _format_instant(ns: int | None) -> str | None:
    return None if ns is None else datetime.fromtimestamp(ns / 10**9, UTC).isoformat()


ANSWER_FORMATS = {
    "table": AnswerFormat("text/plain", _render_table),
    "json": AnswerFormat("application/json", lambda document: document.model_dump_json().encode() + b"\n"),
    "csv": AnswerFormat("text/csv", _render_csv),
    "arrow": AnswerFormat("application/vnd.apache.arrow.stream", _render_arrow),
}
