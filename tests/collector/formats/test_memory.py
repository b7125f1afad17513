"""Memory that an import takes, measured in a process of its own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FILE_BYTES = 7_000_000
# The libraries alone take 150 MB. Python objects for the whole file would take several hundred more.
MOST_MB = 300
PROGRAM = """
import re, sys
from pathlib import Path
from spanproof.api.commands.import_export import import_files
import_files([Path(sys.argv[1])], sys.argv[2], None, print)
print(re.search("VmHWM:\\\\s*(\\\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def make_tag(key: str, value: Any, kind: str = "string") -> dict[str, Any]:
    return {"key": key, "type": kind, "value": value}


def make_jaeger_traces(most_spans: int) -> dict[str, Any]:
    """Return about FILE_BYTES of traces as Jaeger's query service writes them."""
    chance = random.Random(1)  # noqa: S311 (example data)
    traces: list[dict[str, Any]] = []
    size = 0
    while size < FILE_BYTES:
        trace_id = f"{chance.getrandbits(128):032x}"
        spans: list[dict[str, Any]] = []
        while len(spans) < most_spans and size < FILE_BYTES:
            tags = [
                make_tag("span.kind", chance.choice(["server", "client"])),
                make_tag("http.request.method", "GET"),
                make_tag("url.full", f"http://shop-{chance.randrange(9)}:8080/items/{chance.getrandbits(40)}"),
                make_tag("otel.scope.name", f"instrumentation-{chance.randrange(4)}"),
                make_tag("http.response.status_code", chance.choice([200, 503]), "int64"),
                make_tag("error", False, "bool"),
                make_tag("ratio", chance.random(), "float64"),
            ]
            references = [{"refType": "CHILD_OF", "traceID": trace_id, "spanID": spans[-1]["spanID"]}] if spans else []
            log = {"timestamp": 1_700_000_000_000_000, "fields": [make_tag("event", "cache miss"), make_tag("n", "1")]}
            spans.append(
                {
                    "traceID": trace_id,
                    "spanID": f"{chance.getrandbits(63) + 1:016x}",
                    "operationName": f"GET /items/{chance.randrange(30)}",
                    "references": references,
                    "startTime": 1_700_000_000_000_000 + len(spans),
                    "duration": chance.randrange(100_000),
                    "tags": tags,
                    "logs": [log] if chance.random() < 0.3 else [],
                    "processID": f"p{chance.randrange(8)}",
                    "warnings": None,
                }
            )
            size += 900
        processes = {f"p{n}": {"serviceName": f"shop-{n}", "tags": [make_tag("host.name", "h")]} for n in range(8)}
        traces.append({"traceID": trace_id, "spans": spans, "processes": processes, "warnings": None})
    return {"data": traces, "total": 0, "limit": 0, "offset": 0, "errors": None}


def make_zipkin_spans() -> list[dict[str, Any]]:
    chance = random.Random(1)  # noqa: S311 (example data)
    return [
        {
            "traceId": f"{1 + number // 40:032x}",
            "id": f"{1 + number:016x}",
            "parentId": f"{max(number, 1):016x}",
            "kind": "SERVER",
            "name": "get /items",
            "timestamp": 1_700_000_000_000_000 + number,
            "duration": 1 + chance.randrange(10_000),
            "localEndpoint": {"serviceName": f"shop-{number % 8}", "ipv4": "10.0.0.1", "port": 80},
            "remoteEndpoint": {"ipv4": f"10.0.0.{chance.randrange(256)}", "port": chance.randrange(1, 60_000)},
            "tags": {"http.method": "GET", "http.path": f"/items/{chance.getrandbits(40)}", "http.status_code": "200"},
        }
        for number in range(FILE_BYTES // 460)
    ]


def make_otlp_spans() -> dict[str, Any]:
    chance = random.Random(1)  # noqa: S311 (example data)

    def make_spans(service: int) -> Iterator[dict[str, Any]]:
        for number in range(service, FILE_BYTES // 550, 8):
            attributes = [("url.path", f"/items/{chance.getrandbits(40)}"), ("server.address", "shop"), ("m", "GET")]
            yield {
                "traceId": f"{1 + number // 40:032x}",
                "spanId": f"{1 + number:016x}",
                "parentSpanId": f"{max(number, 1):016x}",
                "name": "GET /items",
                "kind": 2,
                "startTimeUnixNano": str(1_700_000_000_000_000_000 + number),
                "endTimeUnixNano": str(1_700_000_000_100_000_000 + number),
                "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes]
                + [{"key": "http.response.status_code", "value": {"intValue": "200"}}],
                "status": {},
            }

    return {"resourceSpans": [{"scopeSpans": [{"spans": list(make_spans(service))}]} for service in range(8)]}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    "make",
    [lambda: make_jaeger_traces(30), lambda: make_jaeger_traces(10**6), make_zipkin_spans, make_otlp_spans],
    ids=["many Jaeger traces", "one Jaeger trace", "Zipkin", "OTLP"],
)
def test_import_takes_bounded_memory(tmp_path: Path, make: Callable[[], Any]) -> None:
    path = tmp_path / "traces.json"
    path.write_text(json.dumps(make(), separators=(",", ":")))
    assert FILE_BYTES * 0.8 < path.stat().st_size < FILE_BYTES * 1.5
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(tmp_path / "spans.duckdb")],
        capture_output=True,
        text=True,
        check=True,
    )
    peak_mb = int(ran.stdout.split()[-1]) / 1024
    assert peak_mb < MOST_MB, ran.stdout
