"""Evidence that one attempt repeats another: what is recorded, and what speaks against it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from spanproof.collector.calls.retry_candidates import RetryCandidate


class Tier(IntEnum):
    """How well it is known that attempts belong to one call, from best to worst."""

    SINGLE = 0
    EXPLICIT = 1  # a counter, or the same message
    ARRIVALS = 2  # several server spans below one client span
    INFERRED = 3  # after a failure, the spans record that the same thing was asked for
    POSSIBLE = 4  # after a failure, something of the same name was asked for


def compare_requests(failed: RetryCandidate, later: RetryCandidate) -> Tier | str:
    """Return the tier of the evidence that `later` repeats `failed`, or the difference that keeps them apart.

    Both have the same logical parent, caller and protocol.
    """
    if failed.is_async != later.is_async:
        return "one is a message, and the other one a call"
    are_answered = failed.is_answered and later.is_answered
    if are_answered and failed.callee != later.callee:
        return f"they reached different services: `{failed.callee}` and `{later.callee}`"
    if failed.message_key is not None and later.message_key is not None and failed.message_key != later.message_key:
        return "they delivered different messages"
    first, second = failed.identity, later.identity
    if first.method != second.method:
        return f"their methods differ: {_quote(first.method)} and {_quote(second.method)}"
    if first.target != second.target:
        return f"they asked for different things: {_quote(first.target)} and {_quote(second.target)}"
    if first.address != second.address and not are_answered:
        return f"they called different addresses: {_quote(first.address)} and {_quote(second.address)}"
    for one, other in zip(first.distinguishing, second.distinguishing, strict=True):
        for name in one.keys() & other.keys():
            if one[name] != other[name]:
                return f"`{name}` differs: {_quote(one[name])} and {_quote(other[name])}"
    is_recorded = (
        (first.is_exact and first.is_idempotent and second.is_idempotent)
        or (bool(first.parameters) and first.parameters == second.parameters)
        or any(_share_item(one, other) for one, other in zip(first.things, second.things, strict=True))
        or bool(set(failed.wrappers) & set(later.wrappers))
    )
    return Tier.INFERRED if is_recorded and first.is_exact else Tier.POSSIBLE


def _share_item(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    return any(second.get(name) == text for name, text in first.items())


def _quote(text: str | None) -> str:
    return "none" if text is None else f"`{text}`"
