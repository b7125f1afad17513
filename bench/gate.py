"""Time of a deploy gate's proof over 1 and 10 million spans, with and without derived calls.

The stores are made once and kept in a folder. It also prints the processor time, which other programs on the machine
disturb less. The last line is JSON.

Example: python -m spanproof.bench.gate --folder /var/tmp/gate
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from spanproof.bench.gate_store import make_store

_SIZES = {"1m": 1_000_000, "10m": 10_000_000}


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="folder of the stores; %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="number of runs of the proof; %(default)s")
    parser.add_argument("--memory", default="3GB", help="memory limit of DuckDB, as `serve --memory`; %(default)s")
    args = parser.parse_args()
    memory = f"--memory={args.memory}"
    args.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for name, spans in _SIZES.items():
        stored = args.folder / f"gate-{name}.duckdb"
        if not stored.exists():
            print(f"making {stored}", flush=True)
            make_store(stored, spans)
        derived = args.folder / "gate-derived.duckdb"
        shutil.copyfile(stored, derived)
        try:
            first_run = _measure(derived, memory, "--runs=1")
            derived_runs = _measure(derived, memory, f"--runs={args.runs}")
            results[name] = {
                "deriving_s": first_run["derive_s"] + first_run["runs_s"][0],
                "derive_s": first_run["derive_s"],
                "derived_s": statistics.median(derived_runs["runs_s"]),
                "derive_cpu_s": first_run["derive_cpu_s"],
                "cpu_s": derived_runs["cpu_s"],
                "verdicts_s": derived_runs["verdicts_s"],
                "rss_mib": max(first_run["rss_mib"], derived_runs["rss_mib"]),
            }
            _print_results(name, results[name])
            if name == "10m":
                slowdown = _measure(derived, memory, "--one", f"--runs={args.runs}")
        finally:
            derived.unlink()
            derived.with_name(f"{derived.name}.wal").unlink(missing_ok=True)
    idle_s, busy_s = (statistics.median(slowdown[kind]) for kind in ("quiet_s", "busy_s"))
    print(f"one claim: {idle_s:.2f} s, {busy_s:.2f} s while spans arrive")
    print(
        json.dumps(
            {
                "derived_s_1m": round(results["1m"]["derived_s"], 2),
                "derived_s_10m": round(results["10m"]["derived_s"], 2),
                "deriving_s_10m": round(results["10m"]["deriving_s"], 2),
                "rss_mib": round(max(slowdown["rss_mib"], *(each["rss_mib"] for each in results.values()))),
                "slowdown_under_ingest": round(busy_s / idle_s, 2),
            }
        )
    )


def _measure(store: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "spanproof.bench.gate_proof", str(store), *options]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 (our own command)
    report: dict[str, Any] = json.loads(finished.stdout)
    return report


def _print_results(name: str, results: dict[str, Any]) -> None:
    verdicts = results["verdicts_s"]
    steps = [f"{after - before:.2f}" for before, after in zip([0.0, *verdicts], verdicts, strict=False)]
    print(
        f"{name}: calls derived {results['derived_s']:.2f} s (processors {results['cpu_s']:.2f} s), with derivation"
        f" {results['deriving_s']:.2f} s (derivation {results['derive_s']:.2f} s, its processors"
        f" {results['derive_cpu_s']:.2f} s), {results['rss_mib']:.0f} MiB; from verdict to verdict {' '.join(steps)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
