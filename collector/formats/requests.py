"""What files are read as: serialized trace requests, each with its place, so that a fault in it can be found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spanproof.collector.formats.json_documents import raise_unreadable

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SPAN_PATH: Final = re.compile(r"resourceSpans\[0\]\.scopeSpans\[0\]\.spans\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class LocatedRequest:
    """A request of bounded size, made from what stands at `place`; where `path` is told, its only spans are there."""

    body: bytes
    location: str
    path: str = ""
    first_span: int = 0

    def locate_problem(self, problem: str) -> str:
        """Say where in the file a fault is that the decoder found in this request."""
        if self.path:
            problem = _SPAN_PATH.sub(lambda found: f"{self.path}.spans[{self.first_span + int(found[1])}]", problem)
        return f"{self.location}: {problem}" if self.location else problem


def reject_duplicate_keys_in_request(request: ExportTraceServiceRequest) -> None:
    """Refuse a request in which an attribute is given twice: a store keeps the last."""
    for index, of_resource in enumerate(request.resource_spans):
        path = f"resourceSpans[{index}]"
        reject_duplicate_keys(of_resource.resource.attributes, f"{path}.resource")
        for place, of_scope in enumerate(of_resource.scope_spans):
            reject_duplicate_keys(of_scope.scope.attributes, f"{path}.scopeSpans[{place}].scope")
            for number, span in enumerate(of_scope.spans):
                reject_duplicate_keys_in_span(span, f"{path}.scopeSpans[{place}].spans[{number}]")


def reject_duplicate_keys_in_span(span: Span, path: str) -> None:
    """Refuse a span in which an attribute is given twice."""
    reject_duplicate_keys(span.attributes, path)
    for index, event in enumerate(span.events):
        reject_duplicate_keys(event.attributes, f"{path}.events[{index}]")
    for index, link in enumerate(span.links):
        reject_duplicate_keys(link.attributes, f"{path}.links[{index}]")


def reject_duplicate_keys(attributes: Iterable[KeyValue], path: str) -> None:
    """Refuse a list of attributes that has a key twice."""
    keys = [each.key for each in attributes]
    if len(set(keys)) < len(keys):
        doubled = next(key for key in keys if keys.count(key) > 1)
        raise_unreadable(f"{path}.attributes", f"{doubled!r} is there twice, and one of them would be lost")
