"""The field test as a command: `make field ARGS='--client got --plan hang-once'`."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from spanproof.tests.field.clients import CLIENTS
from spanproof.tests.field.comparison import WRONG, Compared, Field
from spanproof.tests.field.matrix import format_inconclusive, format_matrix, format_wrong
from spanproof.tests.field.plans import PLANS
from spanproof.tests.field.trace_view import format_trace


def main() -> int:
    parser = argparse.ArgumentParser(prog="make field", description=__doc__)
    parser.add_argument("--client", action="append", choices=CLIENTS, metavar="CLIENT", help=", ".join(CLIENTS))
    parser.add_argument("--plan", action="append", choices=PLANS, metavar="PLAN", help=", ".join(PLANS))
    parser.add_argument("--show", action="store_true", help="show the traces of wrong verdicts")
    parser.add_argument("--show-all", action="store_true", help="show the traces of all runs")
    chosen = parser.parse_args()
    plans = [PLANS[name] for name in chosen.plan or PLANS]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the clients are stopped
    compared: list[Compared] = []
    not_run: list[str] = []
    with Field() as field:
        for name in chosen.client or CLIENTS:
            client, started = CLIENTS[name], time.monotonic()
            why_not = {plan.name: field.why_not(client, plan) for plan in plans}
            not_run += [f"not run: {name}: {plan}: {why}" for plan, why in why_not.items() if why]
            of_client = field.judge(field.run(client, plans))
            compared += of_client
            wrong = list(format_wrong(of_client))
            seconds = time.monotonic() - started
            print(
                f"{name}: {len(of_client)} verdicts, {len(wrong)} wrong, {seconds:.1f} s", *wrong, sep="\n", flush=True
            )
            shown = {each.trace_ids for each in of_client if chosen.show_all or (chosen.show and each.mark in WRONG)}
            for trace_id in sorted(trace_id for trace_ids in shown for trace_id in trace_ids):
                print(format_trace(field.connection, trace_id))
    print(format_matrix(compared, not_run))
    print()
    print(format_inconclusive(compared))
    return any(each.mark in WRONG for each in compared)


if __name__ == "__main__":
    sys.exit(main())
