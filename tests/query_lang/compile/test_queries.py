"""Queries: valid ones, and the diagnostics of invalid ones."""

import pytest

from spanproof.query_lang.compile.queries import read_query


@pytest.mark.parametrize(
    "text",
    [
        "p95(duration(gateway)) by resource.service.version over last 1h",
        "p(99.9, duration(gateway -> orders)) over last 15m every 1m",
        'count(gateway "POST /checkout") since "2026-01-31T12:00:00Z"',
        'error_rate(gateway) from gateway over last 1d where http.route == "/x"',
        "count(traces) over last 1h every 10s",
        "avg(duration(gateway)) - avg(duration(orders)) over last 1h",
        'rate(gateway) between "2026-01-31T12:00:00Z" and "2026-01-31T13:00:00Z"',
    ],
)
def test_valid_query_parses(text: str) -> None:
    read = read_query(text)
    assert read.diagnostics == ()
    assert read.query is not None


@pytest.mark.parametrize(
    ("text", "id_", "part"),
    [
        ("duration(gateway) over last 1h", "not-a-number", "duration(gateway)"),
        ("gateway over last 1h", "misplaced", "gateway"),
        ("5ms over last 1h", "misplaced", "5ms"),
        ("count(gateway)", "syntax", ""),
        ("count(gateway) over last 5", "type-mismatch", "5"),
        ("count(gateway) over last 1h every 0s", "out-of-range", "0s"),
        ("count(gateway) over last 1h every 5", "type-mismatch", "5"),
        ("count(gateway) by colour over last 1h", "unknown-field", "colour"),
        ("count(traces) by service over last 1h", "misplaced", "service"),
        ("sum(critical(gateway)) over last 1h every 1m", "misplaced", "1m"),
        ('count(gateway) since "yesterday"', "bad-time", '"yesterday"'),
        ("count(gateway) < 5 over last 1h", "not-a-number", "count(gateway) < 5"),
        ("sum(count(gateway)) over last 1h", "misplaced", "count(gateway)"),
        ("max(duration(gateway) + count(orders)) over last 1h", "type-mismatch", "duration(gateway) + count(orders)"),
        ("baseline over last 1h", "no-baseline", "baseline"),
        ('env("HOME") over last 1h', "misplaced", 'env("HOME")'),
        ("response.status over last 1h", "misplaced", "response.status"),
    ],
)
def test_invalid_query_is_rejected(text: str, id_: str, part: str) -> None:
    read = read_query(text)
    assert read.query is None
    first = read.diagnostics[0]
    assert (first.id, text[first.at.start : first.at.end]) == (id_, part)
