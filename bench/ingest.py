"""How fast, and at what cost, spans are taken in: `spanproof serve` and the load client, each a process of its own.

Prints a table and, last, one JSON line. Example: python bench/ingest.py --only grpc64,grpc1
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
    """One way to send, and how many spans of it."""

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
    "plain": Mode("the plain way", 20_000, server=plain_server.start),
    "phoenix": Mode("Phoenix", 4_096, server=phoenix_server.start),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out of one mode; what the client does not know of is what the server's files and memory say."""

    spans_per_s: float
    p50_ms: float
    p99_ms: float
    rss_mib: float
    bytes_per_span: float
    sag: float | None


def measure(mode: Mode) -> Measured:
    """Start a server in an empty folder, send, and stop it."""
    with tempfile.TemporaryDirectory(prefix="spanproof-bench-") as folder:
        served = mode.server(Path(folder))
        try:
            sent = _send(mode, served)
            seconds = sent["spans"] / sent["spans_per_s"] + served.wait_until_stored(sent["spans"])
            rss_mib = served.peak_rss_mib()
        finally:
            served.stop()
        first, last = sent.get("first_per_s"), sent.get("last_per_s")
        return Measured(
            sent["spans"] / seconds,
            sent["p50_ms"],
            sent["p99_ms"],
            rss_mib,
            served.size() / sent["spans"],
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


def _sum_up(found: dict[str, Measured]) -> dict[str, float | None]:
    """Make the last line; what was not measured is null."""
    fast, single, long = (found.get(name) for name in ("grpc64", "grpc1", "long"))

    def ratio(name: str) -> float | None:
        return round(fast.spans_per_s / found[name].spans_per_s, 1) if fast and name in found else None

    ours = [found[name] for name in ("grpc64", "long") if name in found]
    return {
        "spans_per_s": round(fast.spans_per_s) if fast else None,
        "spans_per_s_one_in_flight": round(single.spans_per_s) if single else None,
        "ratio_plain": ratio("plain"),
        "ratio_phoenix": ratio("phoenix"),
        "rss_mib": round(max(each.rss_mib for each in ours)) if ours else None,
        "bytes_per_span": round(ours[-1].bytes_per_span, 1) if ours else None,
        "sag": round(long.sag, 3) if long and long.sag else None,
    }


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="MODE,...", help=f"of {', '.join(MODES)}; all unless told otherwise")
    parser.add_argument("--spans", type=int, help="how many to send in each mode")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(MODES)
    if unknown := set(names) - set(MODES):
        parser.error(f"no such mode: {', '.join(sorted(unknown))}")
    found: dict[str, Measured] = {}
    print(_TABLE.format("", "spans", "spans/s", "p50 ms", "p99 ms", "RSS MiB", "B/span"), flush=True)
    for name in names:
        mode = replace(MODES[name], spans=args.spans) if args.spans else MODES[name]
        try:
            each = found[name] = measure(mode)
        except phoenix_server.NotInstalled as missing:
            print(f"{mode.title:<28}{missing}")
            continue
        numbers = (each.spans_per_s, each.p50_ms, each.p99_ms, each.rss_mib, each.bytes_per_span)
        shown = [f"{number:,.0f}" for number in (mode.spans, *numbers)]
        sag = f"   last million / first: {each.sag:.3f}" if each.sag else ""
        print(_TABLE.format(mode.title, *shown) + sag, flush=True)
    print(json.dumps(_sum_up(found)))


if __name__ == "__main__":
    main()
