"""Traces exported as case files contain the same spans when they are read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from spanproof.assertions.cases.case_file import parse_cases
from spanproof.assertions.cases.case_writer import format_case
from spanproof.assertions.cases.scenario_requests import CaseRequests
from spanproof.assertions.cases.variations import VARIATIONS
from spanproof.collector.formats.import_file import import_file
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.otlp.json_mapping import render_message
from spanproof.collector.storage.span_reader import read_requests
from spanproof.collector.storage.store import Store

TRACES = Path(__file__).parents[2] / "traces"
FILES = sorted(
    path
    for path in TRACES.glob("*/*")
    if not path.name.startswith(("LICENSE", "README")) and "malformed" not in path.name
)
ASSERTION = '\nassert count(traces) == 0\n  pass "0"\n'


def read_case(text: str) -> TracesData:
    """Return the spans of a case file, as they are sent as written."""
    (scenario,) = parse_cases(text + ASSERTION)
    ((traces, _),) = scenario.assertions
    data = TracesData()
    with Store.open() as store:
        for request in CaseRequests(traces, VARIATIONS[0]).build_requests(traces):
            store.append(Decoder().decode([request.SerializeToString()]))
        with store.cursor() as cursor:
            for part in read_requests(cursor):
                data.MergeFrom(part)
    return data


def is_writable(value: AnyValue) -> bool:
    match value.WhichOneof("value"):
        case "array_value":
            return all(is_writable(item) for item in value.array_value.values)
        case "double_value":
            return abs(value.double_value) < float("inf")
        case kind:
            return kind in ("string_value", "bool_value", "int_value")


def as_dict(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {each.key: str(render_message(each.value)) for each in attributes if is_writable(each.value)}


def describe(data: TracesData) -> Counter[str]:
    """Describe each span by its content and that of its parent and its linked spans, without ids."""
    spans = [
        (resource_spans.resource, scope_spans.scope, span)
        for resource_spans in data.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]
    zero_ns = min(span.start_time_unix_nano for _, _, span in spans)
    trace_ids = {span.trace_id for _, _, span in spans}
    names: dict[bytes, str] = {}
    for _, _, span in sorted(spans, key=lambda each: (each[2].kind, each[2].name, each[2].start_time_unix_nano)):
        names.setdefault(span.span_id, f"{span.name} {span.start_time_unix_nano - zero_ns}")

    def describe_span(resource: Any, scope: Any, span: Span) -> str:
        resource_attributes = {"service.name": str({"stringValue": "unknown_service"})} | as_dict(resource.attributes)
        content = {
            "resource": sorted(resource_attributes.items()),
            "scope": (scope.name, scope.version, sorted(as_dict(scope.attributes).items())),
            "name": span.name,
            "kind": span.kind,
            "start": span.start_time_unix_nano - zero_ns,
            "end": span.end_time_unix_nano and span.end_time_unix_nano - zero_ns,
            "status": (span.status.code, span.status.code and span.status.message),
            "attributes": sorted(as_dict(span.attributes).items()),
            "events": [
                (
                    event.name,
                    (event.time_unix_nano or span.start_time_unix_nano) - zero_ns,
                    sorted(as_dict(event.attributes).items()),
                )
                for event in span.events
            ],
            "parent": names.get(span.parent_span_id, "absent" if span.parent_span_id else "none"),
            "links": [
                names[link.span_id] for link in span.links if link.span_id in names and link.trace_id in trace_ids
            ],
        }
        return str(content)

    # a span that was sent twice counts once
    return Counter({describe_span(*each) for each in spans})


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_trace_of_the_test_data_survives(path: Path) -> None:
    with Store.open() as store:
        import_file(store, path)
        with store.cursor() as cursor:
            trace_ids = [row[0] for row in cursor.execute("SELECT DISTINCT trace_id FROM spans").fetchall()]
            for trace_id in trace_ids:
                original = TracesData()
                for part in read_requests(cursor, [trace_id]):
                    original.MergeFrom(part)
                assert describe(read_case(format_case([original]))) == describe(original), trace_id


def make_data(*spans: Span, service: str = "shop") -> TracesData:
    data = TracesData()
    resource_spans = data.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = service
    resource_spans.scope_spans.add().spans.extend(spans)
    return data


def make_span(number: int, parent: int = 0, **fields: Any) -> Span:
    return Span(
        trace_id=b"\1" * 16,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=f"span {number}",
        start_time_unix_nano=10**18 + number,
        end_time_unix_nano=10**18 + number + 1_500_000,
        **fields,
    )


def test_odd_spans_survive() -> None:
    span = make_span(1, kind=2)
    span.name = 'odd "name" {id} \\ \n\u2028 #'
    span.status.code, span.status.message = 2, "it's broken"
    for key, value in {"true": "true", "a b": "{x}", "12": "12", "größe": "サービス", "x": ""}.items():
        span.attributes.add(key=key).value.string_value = value
    span.attributes.add(key="small").value.double_value = 1.5e-9
    span.attributes.add(key="whole").value.double_value = 1e21
    span.attributes.add(key="negative").value.int_value = -(2**63)
    span.attributes.add(key="list").value.array_value.values.add().array_value.values.add().bool_value = True
    unfinished = make_span(2, parent=1)
    unfinished.end_time_unix_nano = 0
    early = make_span(3, parent=99)
    early.end_time_unix_nano = early.start_time_unix_nano - 5_000_000
    early.links.add(trace_id=span.trace_id, span_id=span.span_id)
    early.links.add(trace_id=b"\7" * 16, span_id=span.span_id)
    data = make_data(span, unfinished, early, early, service="resource")
    text = format_case([data])
    assert describe(read_case(text)) == describe(data)
    assert "# Not in this file: links to spans that are not in this file (1)." in text
    assert ' "span 2" unspecified 0.000001ms..\n' in text
    assert '  orphan "resource" "span 3"' in text
    assert text.count('"span 3"') == 1


def test_spans_that_share_an_id_and_cycles_are_written() -> None:
    client, server, child = make_span(1, kind=3), make_span(1, kind=2), make_span(2, parent=1)
    server.start_time_unix_nano += 1000
    data = make_data(server, client, child)
    text = format_case([data])
    assert describe(read_case(text)) == describe(data)
    lines = [line.split(" 0.")[0] for line in text.splitlines()[1:4]]
    assert lines[1:] == ['    shared shop "span 1" server', '      shop "span 2" unspecified']
    cycle = format_case([make_data(make_span(1, parent=2), make_span(2, parent=1))])
    assert "# Not in this file: parents that are their own descendants (1)." in cycle
    assert sum(describe(read_case(cycle)).values()) == 2


def test_resources_are_written_once_for_each_service() -> None:
    data = TracesData()
    for number, region in enumerate(("eu", "eu", "us"), 1):
        resource_spans = data.resource_spans.add()
        resource_spans.resource.attributes.add(key="service.name").value.string_value = "shop"
        resource_spans.resource.attributes.add(key="cloud.region").value.string_value = region
        resource_spans.scope_spans.add().spans.append(make_span(number))
    text = format_case([data])
    assert describe(read_case(text)) == describe(data)
    assert text.splitlines()[1] == '  resource shop { cloud.region: "eu" }'
    assert text.count("resource") == 2


def test_several_traces_share_one_zero_and_their_links() -> None:
    first, second = make_span(1), make_span(2)
    second.trace_id = b"\2" * 16
    second.links.add(trace_id=first.trace_id, span_id=first.span_id)
    data = make_data(first, second)
    text = format_case([data])
    assert describe(read_case(text)) == describe(data)
    assert [line for line in text.splitlines() if line.startswith("trace")] == [
        f"trace {'01' * 16}",
        f"trace {'02' * 16}",
    ]


def test_exported_trace_is_found_by_its_id(store: Store) -> None:
    data = make_data(make_span(1))
    store.append(Decoder().decode([data.SerializeToString()]))
    with store.cursor() as cursor:
        text = format_case(read_requests(cursor, [UUID("01" * 16)]))
    assert text.startswith(f'trace {"01" * 16}\n  shop "span 1" unspecified 0ms..1.5ms\n')
