"""Serialized trace requests from files, with their location, so that an error can be found in the file."""

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
    """A request of bounded size from `location`; if `path` is set, its only spans are there."""

    body: bytes
    location: str
    path: str = ""
    first_span: int = 0

    def locate_problem(self, problem: str) -> str:
        """Return a problem that the decoder found in this request, with its location in the file."""
        if self.path:
            problem = _SPAN_PATH.sub(lambda match: f"{self.path}.spans[{self.first_span + int(match[1])}]", problem)
        return f"{self.location}: {problem}" if self.location else problem


def reject_duplicate_keys_in_request(request: ExportTraceServiceRequest) -> None:
    """Raise UnreadableFile if a request has a duplicate attribute: a store keeps only the last one."""
    for resource_index, resource_spans in enumerate(request.resource_spans):
        resource_path = f"resourceSpans[{resource_index}]"
        reject_duplicate_keys(resource_spans.resource.attributes, f"{resource_path}.resource")
        for scope_index, scope_spans in enumerate(resource_spans.scope_spans):
            scope_path = f"{resource_path}.scopeSpans[{scope_index}]"
            reject_duplicate_keys(scope_spans.scope.attributes, f"{scope_path}.scope")
            for span_index, span in enumerate(scope_spans.spans):
                reject_duplicate_keys_in_span(span, f"{scope_path}.spans[{span_index}]")


def reject_duplicate_keys_in_span(span: Span, path: str) -> None:
    """Raise UnreadableFile if a span has a duplicate attribute."""
    reject_duplicate_keys(span.attributes, path)
    for index, event in enumerate(span.events):
        reject_duplicate_keys(event.attributes, f"{path}.events[{index}]")
    for index, link in enumerate(span.links):
        reject_duplicate_keys(link.attributes, f"{path}.links[{index}]")


def reject_duplicate_keys(attributes: Iterable[KeyValue], path: str) -> None:
    """Raise UnreadableFile if a list of attributes has a duplicate key."""
    keys = [each.key for each in attributes]
    if len(set(keys)) < len(keys):
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise_unreadable(f"{path}.attributes", f"the key {duplicate!r} occurs twice; one value would be lost")
