"""Numbers and lists in words."""

from __future__ import annotations


def listed(names: list[str], most: int = 5) -> str:
    """List names once each, and no more than so many."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - most} more" if len(unique) > most else ""
    return ", ".join(f"`{name}`" for name in unique[:most]) + more


def count(n: int, thing: str) -> str:
    """Say how many things there are."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def times(n: int) -> str:
    """Say how often."""
    return "once" if n == 1 else f"{n} times"
