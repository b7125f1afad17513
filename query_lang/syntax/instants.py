"""Points in time, as ISO 8601 writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_instant(text: str) -> int | None:
    """Return an ISO 8601 time in nanoseconds since the Unix epoch, or None if it is none."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - EPOCH) // timedelta(microseconds=1) * 1_000


def format_instant(ns: int) -> str:
    """Write a point in time as ISO 8601 does, to the second."""
    return f"{EPOCH + timedelta(seconds=ns // 1_000_000_000):%Y-%m-%dT%H:%M:%SZ}"
