"""Points in time in ISO 8601 format."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_instant(text: str) -> int | None:
    """Return an ISO 8601 time in nanoseconds since the Unix epoch, or None if `text` is not one."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - EPOCH) // timedelta(microseconds=1) * 1_000


def format_instant(ns: int) -> str:
    """Return a point in time in ISO 8601 format, with a precision of one second."""
    return f"{EPOCH + timedelta(seconds=ns // 1_000_000_000):%Y-%m-%dT%H:%M:%SZ}"
