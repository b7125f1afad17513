"""Numbers, durations and lists as text."""

from __future__ import annotations


def format_list(names: list[str], limit: int = 5) -> str:
    """List names once each, and no more than so many."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - limit} more" if len(unique) > limit else ""
    return ", ".join(f"`{name}`" for name in unique[:limit]) + more


def format_count(n: int, thing: str) -> str:
    """Say how many things there are."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def format_times(n: int) -> str:
    """Say how often."""
    return "once" if n == 1 else f"{n} times"


def format_short_duration(ns: int) -> str:
    """Return a duration for reading at a glance, to three digits; verdicts print exact ones."""
    size = abs(ns)
    if size >= 999_500_000_000:
        return f"{ns / 1e9:.0f} s"
    if size >= 999_500_000:
        return f"{ns / 1e9:.3g} s"
    if size >= 999_500:
        return f"{ns / 1e6:.3g} ms"
    return f"{ns / 1e3:.3g} µs"


def format_seconds(ns: int) -> str:
    """Return how long something took, in seconds."""
    return f"{ns / 1e9:.1f} s"
