"""Generated export requests, each with ids, times and texts of its own; generation is cheap enough during sending."""

from __future__ import annotations

import gzip
import random
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from spanproof.collector.otlp.json_mapping import dump_json, render_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

SERVICES = ("gateway", "orders", "payments", "stock")
ENCODINGS = ("protobuf", "json", "gzip")
_SPANS_OF_TRACE = 8
_TEMPLATES = 64
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True, slots=True)
class _Template:
    """A serialized request, and the positions of the bytes that differ between requests."""

    body: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    texts: npt.NDArray[np.int64]


def make_requests(
    spans: int, *, encoding: str = "protobuf", seed: int = 1, templates: int = _TEMPLATES
) -> Iterator[bytes]:
    """Yield requests of `spans` spans each, without end; equal seeds give equal requests.

    The requests are variations of `templates` templates, each of which takes some milliseconds to make.
    """
    random_source = random.Random(seed)  # noqa: S311 (not for secrets)
    return _vary(
        [_make_template(random_source, spans) for _ in range(templates)], np.random.default_rng(seed), encoding
    )


def _vary(templates: list[_Template], digits: np.random.Generator, encoding: str) -> Iterator[bytes]:
    begin_ns = time.time_ns()
    while True:
        for template in templates:
            body = template.body.copy()
            # one mask for all ids of a request: equal ids stay equal, so parent ids stay valid
            body[template.ids] ^= digits.integers(0, 256, 8, np.uint8)
            body[template.texts] = _HEX[digits.integers(0, 16, template.texts.shape, np.uint8)]
            shifted = body[template.times].view(np.uint64) + np.uint64(time.time_ns() - begin_ns)
            body[template.times] = shifted.view(np.uint8)
            yield _encode(body.tobytes(), encoding)


def _encode(body: bytes, encoding: str) -> bytes:
    if encoding == "json":
        return dump_json(render_message(ExportTraceServiceRequest.FromString(body))).encode()
    return gzip.compress(body, 6) if encoding == "gzip" else body


def _make_template(random_source: random.Random, count: int) -> _Template:
    request = ExportTraceServiceRequest()
    scopes = [_add_service(request, name) for name in SERVICES]
    spans: list[Span] = []
    for number in range(count):
        parent = spans[-1] if number % _SPANS_OF_TRACE else None
        spans.append(_add_span(random_source, scopes[number % _SPANS_OF_TRACE // 2], parent))
    body = np.frombuffer(request.SerializeToString(), np.uint8)
    ids = [part for span in spans for part in (span.trace_id[:8], span.trace_id[8:], span.span_id)]
    times = [struct.pack("<Q", at) for span in spans for at in (span.start_time_unix_nano, span.end_time_unix_nano)]
    texts = [each.value.string_value.encode() for span in spans for each in span.attributes if each.key == "request.id"]
    return _Template(body, _find_all(body, ids), _find_all(body, times), _find_all(body, texts))


def _find_all(body: npt.NDArray[np.uint8], needles: list[bytes]) -> npt.NDArray[np.int64]:
    """Return the positions of the bytes of each occurrence, one row each; the first eight bytes identify a needle."""
    windows = np.lib.stride_tricks.sliding_window_view(body, 8).copy().view(np.uint64)[:, 0]
    prefixes = np.frombuffer(b"".join(needle[:8] for needle in needles), np.uint64)
    positions: npt.NDArray[np.int64] = np.nonzero(np.isin(windows, prefixes))[0][:, None] + np.arange(len(needles[0]))
    return positions


def _add_service(request: ExportTraceServiceRequest, name: str) -> ScopeSpans:
    resource_spans = request.resource_spans.add()
    for key, value in (
        ("service.name", name),
        ("service.version", "1.4.2"),
        ("deployment.environment.name", "bench"),
        ("telemetry.sdk.language", "python"),
        ("host.name", f"{name}-0"),
    ):
        resource_spans.resource.attributes.add(key=key).value.string_value = value
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "bench.instrumentation"
    scope_spans.scope.version = "1.0"
    return scope_spans


def _add_span(random_source: random.Random, scope: ScopeSpans, parent: Span | None) -> Span:
    route = f"/api/v1/things/{random_source.randrange(40)}"
    start_ns = parent.start_time_unix_nano if parent else time.time_ns()
    start_ns += random_source.randrange(2_000_000)
    span = scope.spans.add(
        trace_id=parent.trace_id if parent else random_source.randbytes(16),
        span_id=random_source.randbytes(8),
        parent_span_id=parent.span_id if parent else b"",
        name=f"GET {route}",
        kind=2 if parent is None or parent.kind == 3 else 3,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + random_source.randrange(50_000_000),
        flags=257,
    )
    texts = {
        "http.request.method": random_source.choice(("GET", "GET", "GET", "POST", "DELETE")),
        "http.route": route,
        "url.full": f"http://{random_source.choice(SERVICES)}:8080{route}?page={random_source.randrange(1000)}",
        "server.address": random_source.choice(SERVICES),
        "request.id": random_source.randbytes(8).hex(),
        "user.id": f"user-{random_source.randrange(10_000)}",
    }
    for key, text in texts.items():
        span.attributes.add(key=key).value.string_value = text
    status = random_source.choice((200, 200, 200, 200, 201, 404, 500))
    span.attributes.add(key="http.response.status_code").value.int_value = status
    span.attributes.add(key="server.port").value.int_value = 8080
    span.attributes.add(key="cache.hit").value.bool_value = random_source.random() < 0.5
    span.attributes.add(key="queue.seconds").value.double_value = round(random_source.random(), 4)
    span.status.code = Status.STATUS_CODE_ERROR if status == 500 else Status.STATUS_CODE_UNSET
    return span
