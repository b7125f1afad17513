"""Time of each stage of ingestion: each stage alone, in one thread, in microseconds per span.

Example: python bench/stages.py --requests 32
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from spanproof.bench.spans import make_requests
from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.otlp.descriptor import REQUEST, FlatMessageReader
from spanproof.collector.storage.store import Store

_SPANS = 512
P = ParamSpec("P")
T = TypeVar("T")


class Clock:
    """Sums of the wall time and the processor time of each stage."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def run(self, stage: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one stage."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return work(*args, **kwargs)
        finally:
            self.wall[stage] = self.wall.get(stage, 0.0) + time.perf_counter() - wall
            self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - cpu


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=32, help="requests per commit")
    parser.add_argument("--spans", type=int, default=500_000, help="total number of spans")
    args = parser.parse_args()
    batches = max(1, args.spans // (args.requests * _SPANS))
    clock, reader, decoder = Clock(), FlatMessageReader(REQUEST), Decoder()
    endless = make_requests(_SPANS)
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "spans.duckdb", settings={"checkpoint_threshold": "64GB"}) as store,
    ):
        for _ in range(batches):
            bodies = list(itertools.islice(endless, args.requests))
            for body in bodies:
                clock.run("check well-formedness", reader.check, body)
            clock.run("protobuf to Arrow", reader.read, bodies)
            decoded = clock.run("both, and columns of the store", decoder.decode, bodies)
            clock.run("insert and commit", store.append, decoded)
        clock.run("checkpoint: move the log into the file", store.cursor().execute, "CHECKPOINT")
    spans = batches * args.requests * _SPANS
    print(f"{'microseconds per span':<40}{'time':>8}{'CPU':>8}")
    for stage, wall in clock.wall.items():
        print(f"{stage:<40}{wall / spans * 1e6:>8.2f}{clock.cpu[stage] / spans * 1e6:>8.2f}")


if __name__ == "__main__":
    main()
