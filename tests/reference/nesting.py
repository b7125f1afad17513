"""Nesting: wrapper spans, and the exit spans inside them that reach the network."""

from __future__ import annotations

from collections.abc import Iterator

from spanproof.tests.reference.spans import CLIENT, PRODUCER, Forest, Span
from spanproof.tests.reference.targets import address_of, differ, network_peer_of, protocol_of, text_of


class Nesting:
    """Which exit spans are wrapper spans of which."""

    def __init__(self, forest: Forest) -> None:
        forest.parts = _find_parts(forest)
        self._above: dict[Span, Span] = {}
        servers = {span: address_of(span) for span in forest.spans}
        peers = {span: network_peer_of(span) for span in forest.spans}
        for span in sorted(forest.spans, key=forest.depth):
            above = exit_above(span, forest) if forest.is_exit(span) else None
            if above is None or differ(servers[span], servers[above]) or _is_asked_first(span, above):
                continue
            if servers[span] is servers[above] is None and differ(peers[span], peers[above]):
                continue
            self._above[span] = above
            servers[span] = servers[span] or servers[above]
            peers[span] = peers[span] or peers[above]
        self.wrapper_spans = set(self._above.values())

    def wrappers(self, span: Span) -> tuple[Span, ...]:
        """Return the wrapper spans around an exit span, the nearest first."""
        above = self._above.get(span)
        return () if above is None else (above, *self.wrappers(above))


def _find_parts(forest: Forest) -> set[Span]:
    """Return the client spans for parts of a call, such as the resolution of a name.

    Such a span has no protocol, no answer, no other address than the request around it, and no request inside.
    """
    parts: set[Span] = set()
    with_requests: set[Span] = set()
    exits = [span for span in forest.spans if forest.is_exit(span) and exit_above(span, forest) is not None]
    for span in sorted(exits, key=forest.depth, reverse=True):
        above = exit_above(span, forest)
        around = above
        while around is not None and protocol_of(around) is None and around.kind != PRODUCER:
            around = exit_above(around, forest)
        names_peer = any(text_of(span, name) is not None for name in ("service.peer.name", "gen_ai.provider.name"))
        is_plain = span.kind == CLIENT and protocol_of(span) is None and not span.is_rpc_attempt and not names_peer
        is_answered = any(list_entries_inside(span, forest))
        if (
            is_plain
            and forest.kind(span) == CLIENT
            and not is_answered
            and span not in with_requests
            and around is not None
            and not differ(address_of(span), address_of(around))
        ):
            parts.add(span)
        elif above is not None:
            with_requests.add(above)
    return parts


def exit_above(span: Span, forest: Forest) -> Span | None:
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


def _is_asked_first(span: Span, above: Span) -> bool:
    """Return whether a client asks a database or a broker, such as a cache, before it sends its request."""
    is_database_or_message = protocol_of(span) in ("db", "messaging") or span.kind == PRODUCER
    return is_database_or_message and protocol_of(above) == "http" and above.kind != PRODUCER


def list_entries_inside(span: Span, forest: Forest) -> Iterator[Span]:
    """Yield the entry spans below a span, with nothing but INTERNAL spans of its service between."""
    for child in forest.children(span):
        if forest.is_entry(child):
            if not forest.is_proxy(child):
                yield child
        elif not forest.is_exit(child):
            yield from list_entries_inside(child, forest)
