"""Latency of verdicts: from the sending of the deciding span to the verdict.

Proofs send a request and expect a path, or the claim of `--claim`, of three services, which export their spans 30 ms
apart. The proofs run one by one, then with eight workers. The output states the processor time that other guests of
the machine took meanwhile (Linux's `steal`), because it delays verdicts too. The last line is JSON.

Example: python -m spanproof.bench.verdict_latency
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.run.events import ClaimJudged, RunEvent
from spanproof.assertions.run.runner import Runner
from spanproof.bench.served import start
from spanproof.collector.receive.receiver import Receiver, freeze_loaded_objects
from spanproof.collector.storage.store import Store
from spanproof.query_lang.load.modules import ProofModule, load_module_text

_PROOF = """
proof "a request goes all the way, {number}" {{
    when GET "{url}"
    expect {claim}
}}
"""


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proofs", type=int, default=200, help="number of proofs; %(default)s")
    parser.add_argument(
        "--claim", default="path gateway -> orders -> payments", help="claim of each proof; %(default)s"
    )
    args = parser.parse_args()
    with Store.open() as store, Receiver(store, "127.0.0.1:0", "127.0.0.1:0") as receiver:
        freeze_loaded_objects()  # as `spanproof run` does
        services, line = start([sys.executable, "-m", "spanproof.bench.traced_services", receiver.grpc_address])
        try:
            proofs = (_PROOF.format(number=n, url=line.strip(), claim=args.claim) for n in range(args.proofs))
            module = load_module_text("".join(proofs), Path("latency.proof"), "latency.proof")
            if module.diagnostics:
                raise SystemExit(str(module.diagnostics))
            begin_times = _read_times()
            latencies, rate = _measure(store, services, module)
            stolen, total = (after - before for after, before in zip(_read_times(), begin_times, strict=True))
            _, rate_of_8 = _measure(store, services, module, workers=8)
        finally:
            services.kill()
            services.wait()
    cuts = statistics.quantiles(latencies, n=100)
    print(f"{args.proofs} proofs: {cuts[49]:.1f} ms (median), {cuts[98]:.1f} ms (p99), {max(latencies):.1f} ms at most")
    print(f"{stolen / total:.1%} of the processor time was taken by other guests of the machine")
    print(f"{rate:.1f} proofs per second with one worker, {rate_of_8:.1f} with 8 workers")
    results = {"p50_ms": cuts[49], "p99_ms": cuts[98], "proofs_per_s_8_workers": rate_of_8}
    print(json.dumps({name: round(value, 1) for name, value in results.items()}))


def _read_times() -> tuple[int, int]:
    """Return the processor time taken by other guests of the machine, and the total processor time, idle included."""
    _, *times = Path("/proc/stat").read_text().partition("\n")[0].split()
    user, nice, system, idle, iowait, irq, softirq, steal, *_ = map(int, times)  # proc_stat(5)
    return steal, user + nice + system + idle + iowait + irq + softirq + steal


def _measure(
    store: Store, services: subprocess.Popen[str], module: ProofModule, workers: int = 1
) -> tuple[list[float], float]:
    """Run proofs; return the latency of each verdict in milliseconds, and the number of proofs per second."""
    verdicts: dict[str, int] = {}

    def record(event: RunEvent) -> None:
        if isinstance(event, ClaimJudged):
            verdicts[event.verdict.witnesses[0].trace_id] = time.time_ns()

    begin = time.perf_counter()
    outcomes = Runner(store, record, workers=workers).run([(module, proof) for proof in module.proofs])
    duration_s = time.perf_counter() - begin
    if set(outcomes) != {Outcome.PASS}:
        raise RuntimeError(f"the proofs were {outcomes}")
    assert services.stdout is not None  # noqa: S101 (stdout is a pipe)
    sent_ns = dict(services.stdout.readline().split() for _ in module.proofs)
    return [(at_ns - int(sent_ns[trace_id])) / 1e6 for trace_id, at_ns in verdicts.items()], len(outcomes) / duration_s


if __name__ == "__main__":
    main()
