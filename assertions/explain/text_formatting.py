"""Numbers, durations and lists as text."""

from __future__ import annotations

import re


def format_list(names: list[str], limit: int = 5) -> str:
    """Return distinct names in backticks, up to `limit`, and the number of the others."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - limit} more" if len(unique) > limit else ""
    return ", ".join(f"`{name}`" for name in unique[:limit]) + more


def format_count(n: int, thing: str) -> str:
    """Return a count with its noun, such as ``2 calls``."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def format_times(n: int) -> str:
    """Return ``once`` or ``N times``."""
    return "once" if n == 1 else f"{n} times"


def format_short_duration(ns: int) -> str:
    """Return a duration with three significant digits; verdicts print exact durations."""
    size = abs(ns)
    if size >= 999_500_000_000:
        return f"{ns / 1e9:.0f} s"
    if size >= 999_500_000:
        return f"{ns / 1e9:.3g} s"
    if size >= 999_500:
        return f"{ns / 1e6:.3g} ms"
    return f"{ns / 1e3:.3g} µs"


def format_span_duration(ns: int | None) -> str:
    """Return the duration of a span; None is that of a span that has not ended."""
    return "not ended" if ns is None else format_short_duration(ns)


def format_seconds(ns: int) -> str:
    """Return a duration in seconds, with one decimal."""
    return f"{ns / 1e9:.1f} s"


def matches_glob(pattern: str, text: str) -> bool:
    """Return whether a pattern in which only ``*`` is special matches a text."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None
