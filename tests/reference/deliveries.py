"""Deliveries of messages: which consumer spans took up the message of a producer span."""

from __future__ import annotations

from collections.abc import Iterable

from spanproof.tests.reference.spans import CONSUMER, PRODUCER, Forest, Span, as_text, read


def linked_to(producer: Span, forest: Forest) -> Iterable[Span]:
    for span in forest.spans:
        if forest.kind(span) == CONSUMER and any(
            (link.trace_id, link.span_id) == (producer.trace_id, producer.span_id) for link in span.links
        ):
            yield span


def delivered_in_other_traces(producer: Span, forest: Forest) -> Iterable[Span]:
    """Yield the consumer spans that nothing ties to a producer, if the first other delivery came from this one."""
    consumers = [span for span in forest.spans if forest.kind(span) == CONSUMER and _delivery_of(span) is not None]
    for span in consumers:
        if span.parent_id is not None or span.links:
            continue
        others = [
            (other.start_ns, one_producer)
            for other in consumers
            if _delivery_of(other) == _delivery_of(span)
            for one_producer in forest.spans
            if one_producer.kind == PRODUCER
            and (other in linked_to(one_producer, forest) or other in forest.children(one_producer))
        ]
        if others and min(others, key=lambda each: each[0])[1] is producer:
            yield span


def _delivery_of(span: Span) -> tuple[str | None, ...] | None:
    """Return the identity of the message that a span takes up, for its service; None if the message has none."""

    def text(name: str) -> str | None:
        return as_text(read(span.attributes, name))

    offset = text("messaging.destination.partition.id"), text("messaging.kafka.offset")
    id_ = text("messaging.message.id") or (None if None in offset else "/".join(map(str, offset)))
    names = ("messaging.consumer.group.name", "messaging.system", "messaging.destination.name")
    return None if id_ is None else (span.service, *(text(name) or "" for name in names), id_)


def drop_receives(spans: list[Span], forest: Forest) -> list[Span]:
    """Return the deliveries: a receive span and a process span for one message are one."""

    def is_(span: Span, what: str) -> bool:
        return as_text(read(span.attributes, "messaging.operation.type")) == what

    processes = [span for span in spans if is_(span, "process")]
    receives = [span for span in spans if is_(span, "receive")]
    dropped = set()
    for process in processes:
        above = [span for span in receives if span in forest.above(process) and span not in dropped]
        before = [span for span in receives if span.start_ns <= process.start_ns and span not in dropped]
        dropped |= set(above[:1] or before[-1:])
    return [span for span in spans if span not in dropped]
