"""Runs a proof of ten claims about a store in this process; prints its times as JSON.

With ``--one``, runs a proof of one claim repeatedly, in turn without load and while spans arrive over gRPC.

Example: python -m spanproof.bench.gate_proof .bench/spans.duckdb --runs 3
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.run.events import ClaimJudged, RunEvent
from spanproof.assertions.run.runner import Runner
from spanproof.bench.gate_store import BEGIN_NS, DURATION_NS
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.query_lang.load.modules import ProofModule, load_module_text

_INSTANTS: Final = [
    time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 10**9)) for ns in (BEGIN_NS, BEGIN_NS + DURATION_NS + 10**9)
]
_GIVEN: Final = 'from gateway "POST /checkout" between "{}" and "{}" where resource.service.version == "{}"'
_CLAIMS: Final = (
    "count(traces) >= 500",
    "error_rate(payments) < 1%",
    "p95(duration(gateway)) < 400ms",
    "p95(duration(*)) < 500ms by service",
    "p95(duration(gateway)) <= baseline * 1.1",
    "error_rate(gateway) not worse than baseline by 0.5pp",
    "path gateway -> orders -> payments in >= 99% of traces",
    "circuit payments -> bank { opens after 5 failures, holds >= 30s }",
    "retry orders -> inventory { attempts <= 3, backoff >= 50ms }",
    "fallback payments -> bank => bank-backup",
)
SINGLE_CLAIM: Final = _CLAIMS[2]
RATE: Final = 20_000  # spans per second
_START_TIMEOUT_S: Final = 30


def read_proof(claims: tuple[str, ...]) -> ProofModule:
    """Return a proof of these claims about the new version."""
    lines = [
        'proof "release 1.4.2 is healthy" {',
        f"given traces {_GIVEN.format(*_INSTANTS, '1.4.2')}",
        f"compare baseline {_GIVEN.format(*_INSTANTS, '1.4.1')}",
        *(f"expect {claim}" for claim in claims),
        "}",
    ]
    module = load_module_text("\n".join(lines), Path("gate.proof"), "gate.proof")
    if module.diagnostics:
        raise ValueError(str(module.diagnostics))
    return module


def run_proof(store: Store, module: ProofModule) -> tuple[float, list[float]]:
    """Run a proof; return its duration and the time to each verdict in seconds. All claims must pass."""
    times: list[float] = []
    failures: list[str] = []

    def record(event: RunEvent) -> None:
        if isinstance(event, ClaimJudged):
            times.append(time.perf_counter())
            if event.verdict.outcome is not Outcome.PASS:
                failures.append(f"{event.verdict.outcome}: {event.verdict.reason}")

    begin = time.perf_counter()
    outcomes = Runner(store, record).run([(module, proof) for proof in module.proofs])
    duration_s = time.perf_counter() - begin
    if failures or outcomes != (Outcome.PASS,):
        raise RuntimeError(f"the proof was {outcomes}: {'; '.join(failures)}")
    return duration_s, [at - begin for at in times]


def peak_rss_mib() -> float:
    """Return the peak memory of this process."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def measure_proof(store: Store, runs: int) -> dict[str, object]:
    """Derive the remaining calls, then run the proof of ten claims `runs` times."""
    module = read_proof(_CLAIMS)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    derive_calls(store)
    derive_s, derive_cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    results = [run_proof(store, module) for _ in range(runs)]
    return {
        "derive_s": derive_s,
        "derive_cpu_s": derive_cpu_s,
        "runs_s": [each for each, _ in results],
        "cpu_s": (time.process_time() - begin_cpu - derive_cpu_s) / runs,
        "verdicts_s": results[-1][1],
        "rss_mib": peak_rss_mib(),
    }


def measure_slowdown(store: Store, pairs: int) -> dict[str, object]:
    """Judge one claim in turn with and without arriving spans."""
    module = read_proof((SINGLE_CLAIM,))
    idle_times: list[float] = []
    busy_times: list[float] = []
    with Receiver(store, "127.0.0.1:0", "127.0.0.1:0") as receiver:
        run_proof(store, module)
        for _ in range(pairs):
            idle_times.append(run_proof(store, module)[0])
            before = _read_last_key(store)
            begin = time.perf_counter()
            command = [sys.executable, "-m", "spanproof.bench.load", "grpc", receiver.grpc_address]
            command += [f"--rate={RATE}", "--spans=512", f"--requests={RATE * 5 // 512}", "--in-flight=8"]
            sender = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (our own command)
            while _read_last_key(store) == before:
                if time.perf_counter() - begin > _START_TIMEOUT_S:
                    raise TimeoutError("no span arrived")
                time.sleep(0.01)
            times = []
            while sender.poll() is None:
                times.append(run_proof(store, module)[0])
            report, _ = sender.communicate()
            rate = json.loads(report)["spans_per_s"]
            if rate < RATE * 0.9:
                raise RuntimeError(f"only {rate:.0f} spans a second arrived")
            busy_times.append(statistics.median(times[:-1] or times))
            derive_calls(store)
    return {"quiet_s": idle_times, "busy_s": busy_times, "rss_mib": peak_rss_mib()}


def _read_last_key(store: Store) -> int:
    with closing(store.cursor()) as connection:
        ((last_key,),) = connection.execute("SELECT max(span_key) FROM spans").fetchall()
    return int(last_key)


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", action="store_true")
    parser.add_argument("--memory", default="3GB", help="memory limit of DuckDB, as `serve --memory`; %(default)s")
    args = parser.parse_args()
    with Store.open(args.store, settings={"memory_limit": args.memory}) as store:
        print(json.dumps((measure_slowdown if args.one else measure_proof)(store, args.runs)))


if __name__ == "__main__":
    main()
