"""A stored trace as text, to find out why a verdict is what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
HIDDEN = ("server.", "network.", "user_agent.", "net.", "thread.", "http.flavor", "http.scheme", "http.host")


def format_trace(connection: duckdb.DuckDBPyConnection, trace_id: str) -> str:
    """Return the spans of a trace as a tree, with their times and attributes."""
    rows = connection.execute(
        "SELECT span_id, parent_id, service, name, kind, start_ns, end_ns, status, attributes,"
        " [e.name for e in events], len(links) FROM spans WHERE trace_id = $trace::UUID ORDER BY start_ns",
        {"trace": trace_id},
    ).fetchall()
    known = {row[0] for row in rows}
    zero = min((row[5] for row in rows), default=0)
    lines = [f"trace {trace_id}"]

    def add(parent: int | None, depth: int) -> None:
        for row in rows:
            if row[1] == parent or (parent is None and row[1] not in known):
                shown = ", ".join(
                    f"{name}={text}"
                    for name, text in zip(row[8]["keys"], row[8]["texts"], strict=True)
                    if not name.startswith(HIDDEN)
                )
                times = f"{(row[5] - zero) / 1e6:.1f}..{(row[6] - zero) / 1e6:.1f}ms"
                status = ("", " ok", " ERROR")[row[7]]
                lines.append(
                    f"{'  ' * depth}{row[2]} {row[3]!r} {KINDS[row[4]]} {times}{status} {{{shown}}}"
                    f"{' events ' + ', '.join(row[9]) if row[9] else ''}{' links' if row[10] else ''}"
                )
                add(row[0], depth + 1)

    add(None, 1)
    return "\n".join(lines)
