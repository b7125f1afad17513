"""What files are read as: serialized trace requests, each with its place, so that a fault in it can be found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spanproof.collector.files.documents import refuse

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SPAN: Final = re.compile(r"resourceSpans\[0\]\.scopeSpans\[0\]\.spans\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A request of bounded size, made from what stands at `place`; where `path` is told, its only spans are there."""

    body: bytes
    place: str
    path: str = ""
    first: int = 0

    def locate(self, fault: str) -> str:
        """Say where in the file a fault is that the decoder found in this request."""
        if self.path:
            fault = _SPAN.sub(lambda found: f"{self.path}.spans[{self.first + int(found[1])}]", fault)
        return f"{self.place}: {fault}" if self.place else fault


def refuse_doubled_in_request(request: ExportTraceServiceRequest) -> None:
    """Refuse a request in which an attribute is given twice: a store keeps the last."""
    for index, of_resource in enumerate(request.resource_spans):
        path = f"resourceSpans[{index}]"
        refuse_doubled(of_resource.resource.attributes, f"{path}.resource")
        for place, of_scope in enumerate(of_resource.scope_spans):
            refuse_doubled(of_scope.scope.attributes, f"{path}.scopeSpans[{place}].scope")
            for number, span in enumerate(of_scope.spans):
                refuse_doubled_in_span(span, f"{path}.scopeSpans[{place}].spans[{number}]")


def refuse_doubled_in_span(span: Span, path: str) -> None:
    """Refuse a span in which an attribute is given twice."""
    refuse_doubled(span.attributes, path)
    for index, event in enumerate(span.events):
        refuse_doubled(event.attributes, f"{path}.events[{index}]")
    for index, link in enumerate(span.links):
        refuse_doubled(link.attributes, f"{path}.links[{index}]")


def refuse_doubled(attributes: Iterable[KeyValue], path: str) -> None:
    """Refuse a list of attributes that has a key twice."""
    keys = [each.key for each in attributes]
    if len(set(keys)) < len(keys):
        doubled = next(key for key in keys if keys.count(key) > 1)
        refuse(f"{path}.attributes", f"{doubled!r} is there twice, and one of them would be lost")
