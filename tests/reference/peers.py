"""Names of callees that did not answer."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec.structs import replace

from spanproof.tests.reference.spans import Forest, Span
from spanproof.tests.reference.targets import address_of, is_loopback, target_of, text_of

if TYPE_CHECKING:
    from spanproof.tests.reference.attempts import Try


def name_peers(tries: tuple[Try, ...], forest: Forest) -> tuple[Try, ...]:
    """Return the attempts with names of the callees of those that nobody answered."""
    services = {span.service for span in forest.spans}
    learned: dict[object, set[str]] = defaultdict(set)
    answered: dict[object, set[str]] = defaultdict(set)
    for one in tries:
        if one.exit is not None and one.server is not None:
            learned[_learning_key(one, one.exit)].add(one.callee)
            answered[_target_key(one)].add(one.callee)

    def name(one: Try) -> str:
        span = one.naming_span
        by_target, by_address = answered.get(_target_key(one), set()), learned.get(_learning_key(one, span), set())
        if (own := text_of(span, "service.peer.name")) is not None:
            return own
        is_address_ambiguous = address_of(span) is None or len(by_address) > 1
        for known in (by_target if is_address_ambiguous else (), by_address):
            if len(known) == 1:
                return next(iter(known))
        for attribute in ("db.system.name", "messaging.system"):
            if (own := text_of(span, attribute)) is not None:
                return own
        if (address := address_of(span)) is not None:
            label = address[0].split(".")[0]
            return label if label in services else address[0]
        return text_of(span, "gen_ai.provider.name") or "unknown"

    return tuple(replace(one, callee=name(one)) if not one.callee else one for one in tries)


def _learning_key(one: Try, span: Span) -> object:
    address = address_of(span)
    if address is None:
        return id(one)  # nothing is learned without an address
    return (address, one.caller if is_loopback(address[0]) else None)


def _target_key(one: Try) -> object:
    address = address_of(one.primary_span) if one.protocol == "http" else None
    return one.trace_id, one.caller, target_of(one, with_address=True), address
