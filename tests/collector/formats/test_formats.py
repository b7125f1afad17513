"""Detection of file formats, and errors for invalid files."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.formats import import_file as import_file_module
from spanproof.collector.formats import otlp_json
from spanproof.collector.formats.import_file import import_file
from spanproof.collector.formats.json_documents import UnreadableFile
from spanproof.collector.formats.otlp_protobuf import write_delimited
from spanproof.collector.formats.read_file import ImportFormat, is_json
from spanproof.collector.otlp.json_mapping import dump_json, render_message
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import StoreError
from spanproof.tests.collector.exported import export_request

TRACES = Path(__file__).parents[2] / "traces"
SPAN = {"traceId": "01" * 16, "spanId": "02" * 8, "name": "a", "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
UNKNOWN = ": unknown field; its content would be lost"
TEXT = {"key": "service.name", "type": "string", "value": "b"}
ZIPKIN = {"traceId": "1", "id": "2", "timestamp": 5, "duration": 1}
JAEGER = {"traceID": "1", "spanID": "2", "operationName": "a", "startTime": 5, "duration": 1, "processID": "p"}

Write = Callable[[bytes | str | list[Any] | dict[str, Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file without a suffix."""

    def write(content: bytes | str | list[Any] | dict[str, Any]) -> Path:
        if isinstance(content, list | dict):
            content = json.dumps(content)
        path = tmp_path / "file"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def delimit(*bodies: bytes, fixed: bool = False) -> bytes:
    if fixed:
        return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    stream = io.BytesIO()
    for body in bodies:
        write_delimited(stream, body)
    return stream.getvalue()


def make_otlp(*spans: dict[str, Any], key: str = "resourceSpans") -> dict[str, Any]:
    return {key: [{"scopeSpans": [{"spans": list(spans)}]}]}


def make_jaeger(span: dict[str, Any], **trace: Any) -> dict[str, Any]:
    return {"data": [{"traceID": "1", "spans": [span], "processes": {"p": {"serviceName": "shop"}}} | trace]}


def make_logs() -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1, severity_text="INFO")
    record.body.string_value = "said"
    return request


def make_metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="requests", unit="1")
    metric.gauge.data_points.add(as_int=3, time_unix_nano=1)
    return request


# ## Valid files


def test_opentelemetry_demo_is_imported_from_gzip(store: Store) -> None:
    imported = import_file(store, TRACES / "oteldemo" / "test_data.json.gz")
    assert (imported.spans, imported.traces) == (547, 141)
    assert imported.log.format_skipped() == "; 16 documents of logs and 40 of metrics skipped"


@pytest.mark.parametrize(
    ("name", "spans"),
    [
        ("otlp-examples/trace.json", 1),
        ("duckdb-otlp/traces_simple.jsonl", 3),
        ("duckdb-otlp/traces_nulls.jsonl", 3),
        ("duckdb-otlp/traces_deep_nesting.jsonl", 1),
        ("duckdb-otlp/traces_large_attrs.jsonl", 1),
        ("duckdb-otlp/otlp_traces.pb", 1),
        ("jaeger-ui/otlp2jaeger-in.json", 2),
        ("jaeger-fixtures/link_attributes_trace.json", 1),
        ("jaeger-fixtures/scope_attributes_trace.json", 1),
    ],
)
def test_published_otlp_files_are_imported(store: Store, name: str, spans: int) -> None:
    assert import_file(store, TRACES / name).spans == spans


def test_tempo_ids_and_names_are_read(store: Store) -> None:
    assert import_file(store, TRACES / "oats-kafka" / "trace_by_id.json").spans == 3
    (resource_spans,) = export_request(store, "077bd30f2f8154b5948dc04724f89ff5").resource_spans
    spans = [span for scope_spans in resource_spans.scope_spans for span in scope_spans.spans]
    batches = json.loads((TRACES / "oats-kafka" / "trace_by_id.json").read_bytes())["batches"]
    names = [span["name"] for batch in batches for scope in batch["scopeSpans"] for span in scope["spans"]]
    assert [span.name for span in spans] == names
    assert [span.kind for span in spans] == [2, 1, 4]
    assert [span.parent_span_id.hex() for span in spans] == ["", "3fb4dd6f07c798b7", "daa211b4824b3a16"]
    counts = [len(span["attributes"]) for batch in batches for scope in batch["scopeSpans"] for span in scope["spans"]]
    assert [len(span.attributes) for span in spans] == counts


def test_deprecated_scope_keys_are_read(store: Store, write: Write) -> None:
    library_spans = [{"instrumentationLibrary": {"name": "lib", "version": "1"}, "spans": [SPAN]}]
    import_file(store, write({"batches": [{"instrumentationLibrarySpans": library_spans}]}))
    ((scope_spans,),) = [each.scope_spans for each in export_request(store, "01" * 16).resource_spans]
    assert (scope_spans.scope.name, scope_spans.scope.version, scope_spans.spans[0].name) == ("lib", "1", "a")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("layout", ["whole", "varint", "fixed", "line", "document", "lines"])
def test_otlp_layout_is_detected_from_content(
    store: Store, write: Write, make_request, layout: str, pack: Callable[[bytes], bytes]
) -> None:
    first, second = make_request(2), make_request(3, trace_id=b"\x02" * 16)
    bodies = [request.SerializeToString() for request in (first, second)]
    line, other = (dump_json(render_message(request)).encode() for request in (first, second))
    content, spans = {
        "whole": (bodies[0] + bodies[1], 5),
        "varint": (delimit(*bodies), 5),
        "fixed": (delimit(*bodies, fixed=True), 5),
        "line": (line, 2),
        "document": (b"\xef\xbb\xbf" + json.dumps(json.loads(line), indent=2).encode(), 2),
        "lines": (line + b"\r\n\r\n" + other + b"\n", 5),
    }[layout]
    assert import_file(store, write(pack(content))).spans == spans
    assert export_request(store, "01" * 16).resource_spans == first.resource_spans


@pytest.mark.parametrize("length", [ord("{"), ord("["), ord("\n"), ord(" ")])
def test_length_that_looks_like_text_is_protobuf(store: Store, write: Write, make_request, length: int) -> None:
    empty = ExportTraceServiceRequest()
    empty.resource_spans.add(schema_url="x" * (length - 4))
    content = delimit(empty.SerializeToString(), make_request().SerializeToString())
    assert content[0] == length
    assert not is_json(content)
    assert import_file(store, write(content)).spans == 1


def test_logs_and_metrics_are_skipped_and_counted(store: Store, write: Write, make_request) -> None:
    requests = (make_metrics(), make_request(), make_logs(), make_logs())
    imported = import_file(store, write(delimit(*(request.SerializeToString() for request in requests))))
    assert (imported.spans, imported.log.skipped) == (1, {"logs": 2, "metrics": 1})


def test_lines_may_have_different_formats(store: Store, write: Write) -> None:
    lines = (make_otlp(SPAN), [ZIPKIN], make_jaeger(JAEGER | {"spanID": "3"}))
    imported = import_file(store, write("\n".join(json.dumps(line) for line in lines)))
    assert (imported.spans, imported.traces) == (3, 2)


def test_large_document_is_split_into_requests(
    store: Store, write: Write, make_request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp_json, "_REQUEST_BYTES", 1000)
    request = make_request(100)
    import_file(store, write(dump_json(render_message(request))))
    assert export_request(store, "01" * 16).resource_spans == request.resource_spans
    request.resource_spans[0].scope_spans[0].spans[70].span_id = bytes(8)
    with pytest.raises(UnreadableFile, match=r"resourceSpans\[0\]\.scopeSpans\[0\]\.spans\[70\]\.spanId is all zeros"):
        import_file(store, write(dump_json(render_message(request))))


@pytest.mark.parametrize("name", ["oteldemo/test_data.json.gz", "zipkin-lens/smartthings-oauth-authorization.json.gz"])
def test_repeated_import_does_not_change_calls(store: Store, name: str) -> None:
    sql = (
        "SELECT trace_id, caller, callee, operation, attempts, shape, start_ns, duration_ns, error, failed, definite"
        " FROM calls ORDER BY ALL"
    )
    calls = []
    for _ in range(2):
        import_file(store, TRACES / name)
        derive_calls(store)
        with store.cursor() as cursor:
            calls.append(cursor.execute(sql).fetchall())
    assert calls[0]
    assert calls[0] == calls[1]


# ## Invalid files


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"name: all\nspans: []\n", "neither JSON (OTLP, Jaeger or Zipkin) nor complete OTLP protobuf"),
        (b"\x28\xb5\x2f\xfd\0\0", "compressed with zstd; unpack it first"),
        (
            gzip.compress(b"[]", mtime=0)[:-4],
            "damaged gzip: Compressed file ended before the end-of-stream marker was reached",
        ),
        (
            "{}",
            "no traces in a known format: OTLP has resourceSpans or batches, an answer of Tempo trace, one of Jaeger"
            " result, data or spans, and Zipkin is an array",
        ),
        ("[]", "the file contains no spans"),
        ('{"resourceLogs": []}', "the file contains no spans; 1 documents of logs skipped"),
        ('{"resourceSpans": [', "line 1, column 20: not JSON: Expecting value"),
        ('{"resourceSpans": []}\n\n{"resource', "line 3, column 2: not JSON: Unterminated string"),
        ('{"resourceSpans": []}\n{"a": "\xff"}'.encode("latin-1"), "line 2: not text in UTF-8"),
        ('{"resourceSpans": NaN}', "line 1: not JSON: NaN is not allowed"),
        (r'{"resourceSpans": [{"schemaUrl": "\ud83d!"}]}', "line 1: an unpaired surrogate is not valid text"),
        ("[" * 100_000, "line 1: nested too deeply"),
        ('{"spans": [], "spans": []}', "an object has the key 'spans' twice; one value would be lost"),
        # OTLP
        ({"resourceSpans": {}}, "resourceSpans: an array is expected"),
        ({"resourceSpans": [{"spans": []}]}, "resourceSpans[0].spans" + UNKNOWN),
        (
            make_otlp(SPAN, SPAN | {"colour": "red"}, key="batches"),
            "batches[0].scopeSpans[0].spans[1].colour" + UNKNOWN,
        ),
        (
            make_otlp(SPAN | {"events": [{"timeUnixNano": "1", "atributes": []}]}),
            "resourceSpans[0].scopeSpans[0].spans[0].events[0].atributes" + UNKNOWN,
        ),
        (
            make_otlp(SPAN | {"kind": "SERVER"}),
            "resourceSpans[0].scopeSpans[0].spans[0].kind: 'SERVER' is not one of SPAN_KIND_UNSPECIFIED,"
            " SPAN_KIND_INTERNAL, SPAN_KIND_SERVER, SPAN_KIND_CLIENT, SPAN_KIND_PRODUCER, SPAN_KIND_CONSUMER",
        ),
        (
            make_otlp(SPAN | {"startTimeUnixNano": "soon"}),
            "resourceSpans[0].scopeSpans[0].spans[0].startTimeUnixNano: an integer is expected, not a string",
        ),
        (
            make_otlp(SPAN, SPAN | {"spanId": "0102"}),
            "1 of 2 spans rejected: resourceSpans[0].scopeSpans[0].spans[1].spanId is 2 bytes long, not 8",
        ),
        (
            "{}\n{}".format(json.dumps(make_otlp(SPAN)), json.dumps(make_otlp(SPAN | {"traceId": "00" * 16}))),
            "line 2: 1 of 1 spans rejected: resourceSpans[0].scopeSpans[0].spans[0].traceId is all zeros",
        ),
        # Zipkin
        ([ZIPKIN, ZIPKIN | {"binaryAnnotations": []}], "[1].binaryAnnotations" + UNKNOWN),
        ([ZIPKIN | {"timestamp": "now"}], "[0].timestamp: a whole number is expected"),
        ([ZIPKIN | {"duration": -1}], "[0].duration: -1 microseconds cannot be stored as a time"),
        ([ZIPKIN | {"id": "xyz"}], "[0].id: 'xyz' is not an id of at most 16 hexadecimal digits"),
        ([ZIPKIN | {"id": "0"}], "[0].id: the id is all zeros"),
        ([ZIPKIN | {"kind": "QUEUE"}], "[0].kind: 'QUEUE' is not a kind: CLIENT, SERVER, PRODUCER, CONSUMER"),
        ([ZIPKIN | {"kind": ["CLIENT"]}], "[0].kind: a text is expected"),
        ([ZIPKIN | {"tags": {"a": 1}}], "[0].tags.a: a text is expected"),
        ([[ZIPKIN], [ZIPKIN | {"localEndpoint": {"host": ""}}]], "[1][0].localEndpoint.host" + UNKNOWN),
        # Jaeger
        ({"data": 5}, "data: an array is expected"),
        ({"data": [], "errors": [{"code": 500}]}, "errors: the query that wrote this file failed"),
        (make_jaeger(JAEGER | {"processID": "q"}), "data[0].spans[0].processID: 'q' is not among the processes"),
        (
            make_jaeger(JAEGER | {"tags": [{"key": "a", "type": {}}]}),
            "data[0].spans[0].tags[0].type: a text is expected",
        ),
        (make_jaeger(JAEGER | {"startTime": None}), "data[0].spans[0].startTime: a whole number is expected"),
        (
            make_jaeger(JAEGER | {"startTime": 2**63}),
            f"data[0].spans[0].startTime: {2**63} microseconds cannot be stored as a time",
        ),
        (
            make_jaeger(JAEGER | {"tags": [{"key": "a", "type": "date", "value": ""}]}),
            "data[0].spans[0].tags[0].type: 'date' is not a type: string, bool, int64, float64, binary",
        ),
        (
            make_jaeger(JAEGER | {"references": [{"refType": "SIBLING"}]}),
            "data[0].spans[0].references[0].refType: 'SIBLING' is neither CHILD_OF nor FOLLOWS_FROM",
        ),
        (
            make_jaeger(JAEGER, processes={"p": {"serviceName": "a", "tags": [TEXT]}}),
            "data[0].processes.p.tags: service.name differs from serviceName",
        ),
    ],
)
def test_invalid_file_names_path_and_problem(store: Store, write: Write, content: Any, problem: str) -> None:
    path = write(content)
    with pytest.raises(UnreadableFile) as error:
        import_file(store, path)
    assert str(error.value) == f"{path}: {problem}"
    with store.cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM spans").fetchall() == [(0,)]


def test_published_malformed_line_is_rejected(store: Store) -> None:
    with pytest.raises(UnreadableFile, match=r"malformed_traces\.jsonl: line 1, column 89: not JSON: "):
        import_file(store, TRACES / "duckdb-otlp" / "multifile_malformed_traces.jsonl")


def test_invalid_protobuf_names_location(store: Store, write: Write, make_request) -> None:
    valid, nameless, truncated = (make_request(2) for _ in range(3))
    nameless.resource_spans[0].scope_spans[0].spans[1].span_id = b""
    unknown = valid.SerializeToString() + b"\x12\x01x"
    for invalid, problem in (
        (nameless.SerializeToString(), r"message\[1\]: 1 of 2 spans rejected: .*\.spans\[1\]\.spanId is 0"),
        (unknown, r"message\[1\]: not a trace request, or a trace request with unknown fields"),
    ):  # fmt: skip
        with pytest.raises(UnreadableFile, match=problem):
            import_file(store, write(delimit(valid.SerializeToString(), invalid)))
    content = delimit(valid.SerializeToString(), truncated.SerializeToString())
    with pytest.raises(UnreadableFile, match="the file ends in the middle of a message"):
        import_file(store, write(content[:-1]))
    with pytest.raises(UnreadableFile, match=r"entry\[0\]: 1 of 2 spans rejected"):
        import_file(store, write(nameless.SerializeToString()))
    with pytest.raises(UnreadableFile, match=r"byte \d+: an unknown field; its content would be lost"):
        import_file(store, write(unknown))


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (ImportFormat.ZIPKIN, r"\$: an array is expected"),
        (ImportFormat.JAEGER, "spans: an array is expected|resourceSpans: unknown field"),
        (ImportFormat.OTLP_PROTO, r"message\[0\]: not a trace request|the file ends in the middle of a message"),
    ],
)
def test_declared_format_is_used(store: Store, write: Write, declared: ImportFormat, problem: str) -> None:
    assert import_file(store, write(make_otlp(SPAN)), ImportFormat.OTLP_JSON).spans == 1
    with pytest.raises(UnreadableFile, match=problem):
        import_file(store, write(make_otlp(SPAN)), declared)


def test_store_error_names_number_of_stored_spans(gated_store, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    gated_store.gate.set()
    path = write("\n".join(json.dumps(make_otlp(SPAN | {"name": name})) for name in ("good", "poison", "good")))
    with pytest.raises(StoreError) as error:
        import_file(gated_store, path)
    assert str(error.value) == f"{path}: of 3 spans, 0 are stored: poison"
    monkeypatch.setattr(import_file_module, "_BATCH_BYTES", 1)
    with pytest.raises(StoreError) as error:
        import_file(gated_store, path)
    assert str(error.value) == (
        f"{path}: of 3 spans, 1 are stored: poison; import the file again: duplicate spans count once"
    )
