"""Nesting: wrapper spans, and the exit spans inside them that reach the network."""

from __future__ import annotations

from spanproof.tests.reference.spans import PRODUCER, Forest, Span
from spanproof.tests.reference.targets import address_of, differ, protocol_of


class Nesting:
    """Which exit spans are wrapper spans of which."""

    def __init__(self, forest: Forest) -> None:
        self._above: dict[Span, Span] = {}
        for span in forest.spans:
            above = _exit_above(span, forest) if forest.is_exit(span) else None
            if above is not None and not _is_call_by_itself(span, above):
                self._above[span] = above
        self.wrapper_spans = set(self._above.values())

    def wrappers(self, span: Span) -> tuple[Span, ...]:
        """Return the wrapper spans around an exit span, the nearest first."""
        above = self._above.get(span)
        return () if above is None else (above, *self.wrappers(above))


def _exit_above(span: Span, forest: Forest) -> Span | None:
    """Return the nearest exit span of the same service above, with no entry span between."""
    if forest.is_entry(span):
        return None
    for other in forest.above(span):
        if other.service != span.service:
            return None
        if forest.is_exit(other):
            return other
        if forest.is_entry(other):
            return None
    return None


def _is_call_by_itself(span: Span, above: Span) -> bool:
    if differ(address_of(span), address_of(above)):
        return True
    is_database_or_message = protocol_of(span) in ("db", "messaging") or span.kind == PRODUCER
    return is_database_or_message and protocol_of(above) == "http" and above.kind != PRODUCER
