"""Throughput and cost of ingestion: `spanproof serve` and the load client, each in a process of its own.

Prints a table and a final line of JSON. Example: python bench/ingest.py --only grpc64,grpc1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from spanproof.bench import phoenix_server, plain_server
from spanproof.bench.served import Served, serve

_TABLE = "{:<28}{:>10}{:>12}{:>9}{:>9}{:>9}{:>8}"
_LONG = 10_000_000


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of sending, and the number of spans to send."""

    title: str
    spans: int
    transport: str = "grpc"
    encoding: str = "protobuf"
    in_flight: int = 64
    spans_a_request: int = 512
    server: Callable[[Path], Served] = serve


MODES = {
    "grpc64": Mode("gRPC, 64 in flight", 2_000_000),
    "grpc1": Mode("gRPC, one in flight", 500_000, in_flight=1),
    "http": Mode("HTTP protobuf", 1_000_000, transport="http"),
    "gzip": Mode("HTTP gzip", 200_000, transport="http", encoding="gzip"),
    "json": Mode("HTTP JSON", 100_000, transport="http", encoding="json"),
    "small": Mode("gRPC, 10 spans a request", 100_000, spans_a_request=10),
    "long": Mode("gRPC, long", _LONG),
    "plain": Mode("plain server", 20_000, server=plain_server.start),
    "phoenix": Mode("Phoenix", 4_096, server=phoenix_server.start),
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """The results of one mode. Memory and bytes are read from the server's process and files, not from the client."""

    spans_per_s: float
    p50_ms: float
    p99_ms: float
    rss_mib: float
    bytes_per_span: float
    slowdown: float | None


def measure(mode: Mode) -> Measurement:
    """Start a server in an empty folder, send, and stop it."""
    with tempfile.TemporaryDirectory(prefix="spanproof-bench-") as folder:
        served = mode.server(Path(folder))
        try:
            report = _send(mode, served)
            seconds = report["spans"] / report["spans_per_s"] + served.wait_until_stored(report["spans"])
            rss_mib = served.peak_rss_mib()
        finally:
            served.stop()
        first, last = report.get("first_per_s"), report.get("last_per_s")
        return Measurement(
            report["spans"] / seconds,
            report["p50_ms"],
            report["p99_ms"],
            rss_mib,
            served.size() / report["spans"],
            last / first if first and last else None,
        )


def _send(mode: Mode, served: Served) -> dict[str, float]:
    command = [sys.executable, "-m", "spanproof.bench.load", mode.transport, served.addresses[mode.transport]]
    options = {
        "encoding": mode.encoding,
        "requests": max(1, mode.spans // mode.spans_a_request),
        "spans": mode.spans_a_request,
        "in-flight": mode.in_flight,
    }
    command += [f"--{name}={value}" for name, value in options.items()]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 (our own command)
    report: dict[str, float] = json.loads(finished.stdout)
    return report


def _summarize(results: dict[str, Measurement]) -> dict[str, float | None]:
    """Return the final line; values without a measurement are null."""
    fast, single, long = (results.get(name) for name in ("grpc64", "grpc1", "long"))

    def ratio(name: str) -> float | None:
        return round(fast.spans_per_s / results[name].spans_per_s, 1) if fast and name in results else None

    measured = [results[name] for name in ("grpc64", "long") if name in results]
    return {
        "spans_per_s": round(fast.spans_per_s) if fast else None,
        "spans_per_s_one_in_flight": round(single.spans_per_s) if single else None,
        "ratio_plain": ratio("plain"),
        "ratio_phoenix": ratio("phoenix"),
        "rss_mib": round(max(each.rss_mib for each in measured)) if measured else None,
        "bytes_per_span": round(measured[-1].bytes_per_span, 1) if measured else None,
        "sag": round(long.slowdown, 3) if long and long.slowdown else None,
    }


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="MODE,...", help=f"of {', '.join(MODES)}; all by default")
    parser.add_argument("--spans", type=int, help="number of spans to send in each mode")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(MODES)
    if unknown := set(names) - set(MODES):
        parser.error(f"no such mode: {', '.join(sorted(unknown))}")
    results: dict[str, Measurement] = {}
    print(_TABLE.format("", "spans", "spans/s", "p50 ms", "p99 ms", "RSS MiB", "B/span"), flush=True)
    for name in names:
        mode = replace(MODES[name], spans=args.spans) if args.spans else MODES[name]
        try:
            each = results[name] = measure(mode)
        except phoenix_server.NotInstalled as missing:
            print(f"{mode.title:<28}{missing}")
            continue
        numbers = (each.spans_per_s, each.p50_ms, each.p99_ms, each.rss_mib, each.bytes_per_span)
        cells = [f"{number:,.0f}" for number in (mode.spans, *numbers)]
        slowdown = f"   last million / first: {each.slowdown:.3f}" if each.slowdown else ""
        print(_TABLE.format(mode.title, *cells) + slowdown, flush=True)
    print(json.dumps(_summarize(results)))


if __name__ == "__main__":
    main()
