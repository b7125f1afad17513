"""Exported files contain the same spans in every format."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from uuid import UUID

import duckdb
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanproof.collector.formats.export_file import (
    ExportFormat,
    ExportSummary,
    UnwritableFile,
    detect_export_format,
    export_file,
    export_stream,
)
from spanproof.collector.formats.import_file import import_file
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage import span_reader
from spanproof.collector.storage.span_reader import read_requests
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request

TRACES = Path(__file__).parents[2] / "traces"
FILES = (
    "oteldemo/test_data.json.gz",
    "duckdb-otlp/traces_deep_nesting.jsonl",
    "duckdb-otlp/traces_nulls.jsonl",
    "jaeger-fixtures/link_attributes_trace.json",
    "jaeger-fixtures/scope_attributes_trace.json",
    "jaeger-ui/spansAmongEachOther.json",
    "oats-kafka/trace_by_id.json",
    "zipkin-lens/smartthings-oauth-authorization.json.gz",
)


@pytest.fixture
def full_store(store: Store) -> Store:
    for name in FILES:
        import_file(store, TRACES / name)
    return store


def list_spans(store: Store) -> list[tuple[bytes, ...]]:
    """Return every span, serialized, with its resource and scope."""
    with store.cursor() as cursor:
        return sorted(
            (
                resource_spans.resource.SerializeToString(deterministic=True),
                resource_spans.schema_url.encode(),
                scope_spans.scope.SerializeToString(deterministic=True),
                scope_spans.schema_url.encode(),
                span.SerializeToString(deterministic=True),
            )
            for data in read_requests(cursor, None)
            for resource_spans in data.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        )


@pytest.mark.parametrize("name", ["spans.jsonl", "spans.pb"])
def test_export_can_be_imported_unchanged(
    full_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(span_reader, "_SPANS_PER_REQUEST", 100)
    path = tmp_path / name
    exported = export_file(full_store, path, detect_export_format(path))
    before = list_spans(full_store)
    assert exported == ExportSummary(len(before), 150)
    assert os.listdir(tmp_path) == [name]
    with Store.open() as other:
        imported = import_file(other, path)
        assert (imported.spans, imported.traces) == (exported.spans, exported.traces)
        assert list_spans(other) == before


def test_export_keeps_arrival_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_reader, "_SPANS_PER_REQUEST", 1)
    import_file(store, TRACES / "zipkin-lens" / "ascend.json")
    import_file(store, TRACES / "zipkin-lens" / "messaging2.json")
    trace_id = UUID(int=0x0D1A94EBC9256244)
    with store.cursor() as cursor:
        parts = list(read_requests(cursor, [trace_id]))
        stored = cursor.execute(
            "SELECT printf('%016x', span_id) FROM spans WHERE trace_id = ? ORDER BY span_key", [trace_id]
        ).fetchall()
    exported_ids = [data.resource_spans[0].scope_spans[0].spans[0].span_id.hex() for data in parts]
    assert len(exported_ids) == 11
    assert exported_ids == [span_id for (span_id,) in stored]


@pytest.mark.parametrize("target", [ExportFormat.OTLP_JSON, ExportFormat.OTLP_PROTO])
def test_only_selected_traces_are_exported(full_store: Store, tmp_path: Path, target: ExportFormat) -> None:
    selected = ["077bd30f2f8154b5948dc04724f89ff5", "00000000000000000000000000000226"]
    stream = io.BytesIO()
    ids = [UUID(trace_id) for trace_id in (*selected, selected[0])]
    assert export_stream(full_store, stream, target, ids) == ExportSummary(4, 2)
    path = tmp_path / "written"
    path.write_bytes(stream.getvalue())
    with Store.open() as other:
        import_file(other, path)
        for trace_id in selected:
            assert export_request(other, trace_id) == export_request(full_store, trace_id)
        with other.cursor() as cursor:
            assert cursor.execute("SELECT count(*) FROM spans").fetchall() == [(4,)]


def test_lines_are_otlp_json(full_store: Store) -> None:
    stream = io.BytesIO()
    export_stream(full_store, stream, ExportFormat.OTLP_JSON, [UUID("077bd30f2f8154b5948dc04724f89ff5")])
    (line,) = stream.getvalue().splitlines()
    (span, *_) = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["traceId"] == "077bd30f2f8154b5948dc04724f89ff5"
    assert (span["kind"], span["startTimeUnixNano"]) == (2, "1693573635765422206")


def test_parquet_is_readable(full_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "it's {odd}.parquet"
    exported = export_file(full_store, path, ExportFormat.PARQUET)
    rows = duckdb.connect().read_parquet(str(path).replace("{", "?").replace("}", "?"))
    counted = "count(*), count(DISTINCT trace_id), sum(len(events)), sum(len(links)), sum(cardinality(attributes))"
    with full_store.cursor() as cursor:
        stored = cursor.execute(
            "SELECT count(*), count(DISTINCT trace_id), sum(len(events)), sum(len(links)), sum(len(attributes.keys))"
            " FROM spans"
        ).fetchall()
    assert rows.aggregate(counted).fetchall() == stored
    assert stored[0][:2] == (exported.spans, exported.traces)
    (span,) = rows.filter("trace_id = '00000000000000000000000000000226'").fetchall()
    row = dict(zip(rows.columns, span, strict=True))
    assert (row["span_id"], row["parent_span_id"], row["service"]) == (
        "0000000000000004",
        None,
        "query25-service",
    )
    assert (row["kind"], row["status"], row["duration_ns"]) == ("unspecified", "unset", 2000)
    link = row["links"][0]
    assert (link["trace_id"], link["span_id"]) == ("000000000000000000000000000000ff", "00000000000000ff")
    assert link["attributes"]["sameplacelinkattribute2"] == "123"
    assert link["attribute_types"]["sameplacelinkattribute2"] == "int"
    assert link["attributes"]["linkblob"] == "AAAwOQ=="
    assert row["resource_attributes"] == {"service.name": "query25-service"}


def test_parquet_restores_marked_values(store: Store, make_request, tmp_path: Path) -> None:
    request = make_request()
    (span,) = request.resource_spans[0].scope_spans[0].spans
    span.kind, span.start_time_unix_nano, span.end_time_unix_nano = 77, 2**63 - 2, 2**63 - 1
    span.attributes.add(key="marked").value.string_value = "\x01s"
    span.attributes.add(key="none").value.SetInParent()
    span.attributes.add(key="list").value.array_value.values.add().int_value = 5
    store.append(Decoder().decode([request.SerializeToString()]))
    path = tmp_path / "a.parquet"
    export_file(store, path, ExportFormat.PARQUET)
    rows = duckdb.connect().read_parquet(str(path)).select("attributes, attribute_types, kind, end_ns").fetchall()
    assert rows == [
        (
            {"marked": "\x01s", "none": None, "list": '[{"intValue":"5"}]'},
            {"marked": "string", "none": "none", "list": "array"},
            "77",
            2**63 - 1,
        )
    ]


def test_parquet_has_no_end_of_unfinished_spans(store: Store, make_request, tmp_path: Path) -> None:
    request = make_request()
    (span,) = request.resource_spans[0].scope_spans[0].spans
    span.end_time_unix_nano = 0
    span.attributes.add(key="nan").value.double_value = float("nan")
    store.append(Decoder().decode([request.SerializeToString()]))
    path = tmp_path / "a.parquet"
    export_file(store, path, ExportFormat.PARQUET)
    rows = duckdb.connect().read_parquet(str(path)).select("end_time, end_ns, duration_ns, attributes").fetchall()
    assert rows == [(None, None, None, {"nan": "nan"})]


def test_existing_file_is_kept_without_overwrite(full_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "spans.pb"
    path.write_text("precious")
    with pytest.raises(UnwritableFile, match=r"spans\.pb exists; --force replaces it"):
        export_file(full_store, path, ExportFormat.OTLP_PROTO)
    assert path.read_text() == "precious"
    linked = tmp_path / "linked.pb"
    linked.symlink_to(path)
    export_file(full_store, linked, ExportFormat.OTLP_PROTO, overwrite=True)
    assert linked.is_symlink()
    with Store.open() as other:
        assert import_file(other, path).traces == 150


def test_failed_export_leaves_no_file(full_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_disk_full(cursor: object, trace_ids: object) -> TracesData:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spanproof.collector.formats.export_file.read_requests", raise_disk_full)
    with pytest.raises(UnwritableFile, match=r"a\.pb cannot be written: No space left on device"):
        export_file(full_store, tmp_path / "a.pb", ExportFormat.OTLP_PROTO)
    for target in ExportFormat:
        with pytest.raises(UnwritableFile, match=r"no/a cannot be written: .*No such file or directory"):
            export_file(full_store, tmp_path / "no" / "a", target)
    with pytest.raises(UnwritableFile, match="is not a file"):
        export_file(full_store, tmp_path, ExportFormat.OTLP_JSON, overwrite=True)
    assert os.listdir(tmp_path) == []


def test_invalid_export_raises_error(full_store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnwritableFile, match="unknown format; use --format"):
        detect_export_format(tmp_path / "spans.csv")
    with pytest.raises(UnwritableFile, match="Parquet cannot be written to standard output"):
        export_stream(full_store, io.BytesIO(), ExportFormat.PARQUET)
    with pytest.raises(UnwritableFile, match=f"no span of trace {'0' * 31}9 is stored"):
        export_file(full_store, tmp_path / "a.pb", ExportFormat.OTLP_PROTO, [UUID(int=9)])
    assert os.listdir(tmp_path) == []
