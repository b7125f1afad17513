"""Spans from the OpenTelemetry SDK for Node.js, exported by each of its three exporters."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.tests.node import find_node

INTEROP = Path(__file__).parent / "interop"
KINDS = {1: "internal", 2: "server", 3: "client"}


@pytest.fixture(scope="module")
def node() -> str:
    return find_node(INTEROP)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with Store.open() as store:
        yield store


@pytest.fixture(scope="module")
def receiver(store: Store) -> Iterator[Receiver]:
    with Receiver(store, "127.0.0.1:0", "127.0.0.1:0") as receiver:
        yield receiver


@pytest.fixture(params=["grpc", "http", "proto"])
def exported(request: pytest.FixtureRequest, node: str, receiver: Receiver) -> dict[str, str]:
    """Send a trace from Node.js and return its ids. The spans are stored once the exporter has its acknowledgment."""
    address = receiver.grpc_address if request.param == "grpc" else receiver.http_address
    emitted = subprocess.run(
        [node, "emit.mjs", request.param, f"http://{address}"],
        cwd=INTEROP,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (emitted.returncode, emitted.stderr) == (0, "")
    ids: dict[str, str] = json.loads(emitted.stdout)
    return ids


def read_spans(store: Store, trace_id: str) -> dict[str, dict[str, Any]]:
    """Return the spans of a trace by name."""
    cursor = store.cursor().execute(
        "SELECT *, printf('%016x', span_id) AS span_hex, printf('%016x', parent_id) AS parent_hex"
        " FROM spans WHERE trace_id = CAST(? AS UUID)",
        [trace_id],
    )
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return {row["name"]: row for row in rows}


def test_spans_are_stored_unchanged(exported: dict[str, str], store: Store) -> None:
    spans = read_spans(store, exported["traceId"])
    assert spans.keys() == {"GET", "GET /teapot"}
    client, server = spans["GET"], spans["GET /teapot"]

    assert {span["service"] for span in spans.values()} == {"node-emitter"}
    assert (KINDS[client["kind"]], KINDS[server["kind"]]) == ("client", "server")
    assert (client["span_hex"], server["span_hex"]) == (exported["clientSpanId"], exported["serverSpanId"])
    assert client["parent_id"] is None
    assert server["parent_hex"] == exported["clientSpanId"]
    assert client["start_ns"] < server["start_ns"] <= server["end_ns"] <= client["end_ns"]
    assert (client["status"], client["status_message"]) == (1, "")
    assert (server["status"], server["status_message"]) == (2, "I'm a teapot")


def test_attributes_keep_their_values_and_types(exported: dict[str, str], store: Store) -> None:
    client = read_spans(store, exported["traceId"])["GET"]

    attributes = read_attributes(client)
    kinds = dict(zip(attributes, client["attribute_kinds"], strict=True))
    assert kinds == {
        "text": "s",
        "text.empty": "s",
        "yes": "b",
        "no": "b",
        "int": "i",
        "int.negative": "i",
        "int.large": "i",
        "double": "d",
        "texts": "a",
        "ints": "a",
        "doubles": "a",
        "bools": "a",
    }
    scalars = {key: value for key, value in attributes.items() if kinds[key] != "a"}
    assert scalars == {
        "text": "grüße, 世界",
        "text.empty": "",
        "yes": "true",
        "no": "false",
        "int": "42",
        "int.negative": "-7",
        "int.large": "9007199254740991",
        "double": "0.25",
    }
    arrays = {key: read_array(value) for key, value in attributes.items() if kinds[key] == "a"}
    assert arrays == {
        "texts": [{"stringValue": "a"}, {"stringValue": "b, c"}, {"stringValue": ""}],
        "ints": [{"intValue": "1"}, {"intValue": "2"}, {"intValue": "3"}],
        "doubles": [{"doubleValue": 0.5}, {"doubleValue": 1.5}],
        "bools": [{"boolValue": True}, {"boolValue": False}],
    }


def test_events_and_links_are_stored(exported: dict[str, str], store: Store) -> None:
    spans = read_spans(store, exported["traceId"])

    (event,) = spans["GET"]["events"]
    assert event["name"] == "answered"
    assert event["attribute_kinds"] == "ia"
    assert read_attributes(event)["http.response.status_code"] == "418"
    assert spans["GET"]["start_ns"] <= event["time_ns"] <= spans["GET"]["end_ns"]
    (exception,) = spans["GET /teapot"]["events"]
    assert exception["name"] == "exception"
    assert read_attributes(exception)["exception.type"] == "TypeError"
    assert read_attributes(exception)["exception.message"] == "no coffee"
    (link,) = read_spans(store, exported["laterTraceId"])["later"]["links"]
    assert (link["trace_id"].hex, f"{link['span_id']:016x}") == (exported["traceId"], exported["clientSpanId"])
    assert read_attributes(link) == {"why": "follows"}


def read_attributes(row: dict[str, Any]) -> dict[str, str]:
    """Return attributes from their form in the store: keys and texts."""
    return dict(zip(row["attributes"]["keys"], row["attributes"]["texts"], strict=True))


def read_array(text: str) -> list[dict[str, Any]]:
    """Return an array from its form in the store: a marker, then the values in OTLP/JSON."""
    assert text.startswith("\x01a")
    values: list[dict[str, Any]] = json.loads(text[2:])
    return values
