"""Time to parse, check and compile a proof of 200 claims, and to run `spanproof check` on it as a process.

It also prints the processor time, which other programs on the machine disturb less.

Example: python bench/check.py --runs 9
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# The claims of a large proof, repeated with different services.
CLAIMS = (
    "path gateway{n} -> orders -> {{ inventory, payments -> bank{n} }}",
    "no path orders -> legacy-billing{n}",
    "inventory before payments{n}",
    'duration(gateway{n} "POST /checkout") < 800ms',
    "budget 800ms {{ gateway: 50ms, orders: 150ms, payments{n}: 500ms }}",
    'count(orders -> payments{n} "POST /charge") == 1',
    'every span[db.system.name == "postgresql" and span.n != {n}] has duration < 50ms',
    "retry payments -> bank{n} {{ attempts == 3, backoff >= 100ms, backoff grows, exhausted }}",
    "fallback payments -> bank{n} => bank-backup",
    "error_rate(payments{n}) < 1%",
    "p95(duration(gateway{n})) < 400ms",
    "path gateway -> orders -> payments{n} in >= 99% of traces",
)
# Parses, checks and compiles once in a new process without previous imports; prints seconds.
COMPILE_PROGRAM = """
import sys, time
from pathlib import Path
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.compile.compiler import compile_claim
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.load.modules import load_module
begin, begin_cpu = time.perf_counter(), time.process_time()
module = load_module(Path(sys.argv[1]))
assert not module.diagnostics, module.diagnostics
plans = [compile_claim(part, Bindings()) for proof in module.proofs for part in proof.statements
         if isinstance(part, s.Expectation)]
assert len(plans) == 200, len(plans)
print(time.perf_counter() - begin, time.process_time() - begin_cpu)
"""


def main() -> None:
    """Measure, and print a table and a final line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        proof = Path(folder) / "large.proof"
        proof.write_text(write_proof(200), encoding="utf-8")

        def compile_once(cache: str) -> list[float]:
            command = [sys.executable, "-c", COMPILE_PROGRAM, str(proof)]
            finished = subprocess.run(  # noqa: S603 (our own program)
                command, env={"XDG_CACHE_HOME": cache}, capture_output=True, check=True
            )
            return [float(seconds) for seconds in finished.stdout.split()]

        def compile_first() -> list[float]:
            with tempfile.TemporaryDirectory() as cache:
                return compile_once(cache)

        def run_check() -> list[float]:
            spanproof = Path(sys.executable).with_name("spanproof")
            begin, before = time.perf_counter(), os.times()
            subprocess.run([spanproof, "check", proof], check=True, capture_output=True)  # noqa: S603 (our own program)
            after = os.times()
            cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
            return [time.perf_counter() - begin, cpu_s]

        measures: dict[str, Callable[[], list[float]]] = {
            "parse_check_compile": lambda: compile_once(folder),
            "parse_check_compile_first_run": compile_first,
            "spanproof_check": run_check,
        }
        for measure in measures.values():
            measure()  # fills the file cache
        medians: dict[str, float] = {}
        for name, measure in measures.items():
            times = zip(*(measure() for _ in range(runs)), strict=True)
            medians |= {
                f"{name}_{kind}": round(statistics.median(each) * 1000, 1)
                for kind, each in zip(("ms", "cpu_ms"), times, strict=True)
            }
    for name, value in medians.items():
        print(f"{name:<40}{value:>8} (median of {runs})")
    print(json.dumps(medians))


def write_proof(claims: int) -> str:
    """Return a proof of `claims` claims."""
    lines = [f"  expect {CLAIMS[n % len(CLAIMS)].format(n=n)}" for n in range(claims)]
    return 'proof "large" {\n  when GET "http://127.0.0.1:8080/"\n' + "\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
