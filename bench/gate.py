"""How long the proof of a deploy gate takes over 1 and 10 million spans, with calls derived and not.

The stores are made once, and kept in a folder. Beside the time it prints that of the processors, which other programs
on the machine disturb less; the last line is JSON.

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
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where the stores are kept; %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="times that the proof is carried out; %(default)s")
    parser.add_argument("--memory", default="3GB", help="what DuckDB may hold, as `serve --memory`; %(default)s")
    args = parser.parse_args()
    memory = f"--memory={args.memory}"
    args.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for name, spans in _SIZES.items():
        stored = args.folder / f"gate-{name}.duckdb"
        if not stored.exists():
            print(f"making {stored}", flush=True)
            make_store(stored, spans)
        derived = args.folder / "gate-derived.duckdb"
        shutil.copyfile(stored, derived)
        try:
            first = _measure(derived, memory, "--runs=1")
            again = _measure(derived, memory, f"--runs={args.runs}")
            found[name] = {
                "deriving_s": first["derive_s"] + first["runs_s"][0],
                "derive_s": first["derive_s"],
                "derived_s": statistics.median(again["runs_s"]),
                "derive_cpu_s": first["derive_cpu_s"],
                "cpu_s": again["cpu_s"],
                "verdicts_s": again["verdicts_s"],
                "rss_mib": max(first["rss_mib"], again["rss_mib"]),
            }
            _show(name, found[name])
            if name == "10m":
                beside = _measure(derived, memory, "--one", f"--runs={args.runs}")
        finally:
            derived.unlink()
            derived.with_name(f"{derived.name}.wal").unlink(missing_ok=True)
    quiet, busy = (statistics.median(beside[kind]) for kind in ("quiet_s", "busy_s"))
    print(f"one claim: {quiet:.2f} s, {busy:.2f} s while spans come in")
    print(
        json.dumps(
            {
                "derived_s_1m": round(found["1m"]["derived_s"], 2),
                "derived_s_10m": round(found["10m"]["derived_s"], 2),
                "deriving_s_10m": round(found["10m"]["deriving_s"], 2),
                "rss_mib": round(max(beside["rss_mib"], *(each["rss_mib"] for each in found.values()))),
                "slowdown_under_ingest": round(busy / quiet, 2),
            }
        )
    )


def _measure(store: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "spanproof.bench.gate_proof", str(store), *options]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 (our own command)
    report: dict[str, Any] = json.loads(finished.stdout)
    return report


def _show(name: str, found: dict[str, Any]) -> None:
    verdicts = found["verdicts_s"]
    steps = [f"{after - before:.2f}" for before, after in zip([0.0, *verdicts], verdicts, strict=False)]
    print(
        f"{name}: derived {found['derived_s']:.2f} s ({found['cpu_s']:.2f} s of processors), deriving"
        f" {found['deriving_s']:.2f} s ({found['derive_s']:.2f} s of it, {found['derive_cpu_s']:.2f} s of processors,"
        f" for all calls), {found['rss_mib']:.0f} MiB; from verdict to verdict {' '.join(steps)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
