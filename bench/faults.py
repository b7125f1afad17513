"""A generic proof against recorded faults: what it finds, its false alarms, and whether it blames the right service.

The folder has OTLP files (protobuf, also gzip) and `windows.json`, a list of `id`, `set` (`fault` or `aa`: nothing was
changed), `target` (the service with the fault), `visible`, and the windows `new` and `old` in Unix nanoseconds. A
fault is visible unless `visible` begins with `none` or `no data`. No claim names a service. Beside the proof, the same
windows are judged by Mann-Whitney's test and by fixed thresholds on each service's durations and errors. The last line
is JSON.

Example: python -m spanproof.bench.faults ../recordings/shop
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from spanproof.assertions.explain.likely_cause import LikelyCause
from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.run.events import ProofFinished, RunEvent
from spanproof.assertions.run.runner import Runner
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.formats.import_file import import_file
from spanproof.collector.storage.store import Store
from spanproof.query_lang.load.modules import load_module_text
from spanproof.query_lang.syntax.instants import format_instant

CLAIMS: Final = (
    "p50(self_time(span *)) not worse than baseline by 50% or 2ms by service, name having count >= 20",
    "p90(self_time(span *)) not worse than baseline by 50% or 5ms by service, name having count >= 40",
    "p50(network(* -> *)) not worse than baseline by 50% or 2ms by caller, callee having count >= 20",
    "p90(network(* -> *)) not worse than baseline by 50% or 5ms by caller, callee having count >= 40",
    "error_rate(*) not worse than baseline by 5pp by service having count >= 20",
    "error_rate(* -> *) not worse than baseline by 5pp by caller, callee having count >= 20",
    "avg(calls(* -> *)) within 50% or 0.1 of baseline by caller, callee having count >= 20",
)
_SERVICES_SQL: Final = """
SELECT t.service, list((t.end_ns - t.start_ns)::DOUBLE), list(t.error)
FROM topology t
WHERE t.is_entry AND t.trace_id IN (
    SELECT trace_id FROM topology WHERE depth = 0 AND start_ns >= $begin AND start_ns < $end
)
GROUP BY t.service
"""
_MANN_WHITNEY_P: Final = 0.02  # as in Kayenta's judge
_THRESHOLD: Final = 1.5
_MIN_VALUES: Final = 20
_ERROR_POINTS: Final = 0.05


@dataclass(frozen=True)
class Judged:
    """The outcome of the proof for a pair of windows, and those of the other judges."""

    window: dict[str, Any]
    has_data: bool
    outcome: Outcome
    causes: tuple[LikelyCause, ...]
    seconds: float
    mann_whitney: bool
    thresholds: bool

    @property
    def is_visible(self) -> bool:
        """Return whether the spans show the fault."""
        return self.window["set"] == "fault" and not self.window["visible"].startswith(("none", "no data"))

    @property
    def is_right_first(self) -> bool:
        """Return whether the first likely cause is the service with the fault."""
        return bool(self.causes) and self.causes[0].service == self.window["target"]


def make_proof(window: dict[str, Any]) -> str:
    """Return the generic proof about a pair of windows."""
    new, old = ([format_instant(ns) for ns in window[side]] for side in ("new", "old"))
    claims = "\n".join(f"  expect {claim}" for claim in CLAIMS)
    return (
        f'proof "{window["id"]}" {{\n  given traces between "{new[0]}" and "{new[1]}"\n'
        f'  compare baseline from span * between "{old[0]}" and "{old[1]}"\n{claims}\n}}\n'
    )


def judge_windows(store: Store, windows: list[dict[str, Any]]) -> Iterator[Judged]:
    """Judge each pair of windows."""
    for window in windows:
        module = load_module_text(make_proof(window), Path("faults.proof"), "faults.proof")
        assert not module.diagnostics, module.diagnostics  # noqa: S101 (written above)
        events: list[RunEvent] = []
        begin = time.perf_counter()
        (outcome,) = Runner(store, events.append).run([(module, module.proofs[0])])
        seconds = time.perf_counter() - begin
        (finished,) = (event for event in events if isinstance(event, ProofFinished))
        sides = [read_services(store, *window[side]) for side in ("new", "old")]
        yield Judged(
            window, all(sides), outcome, finished.likely_causes, seconds,
            any(differs_by_mann_whitney(*each) for each in pair_services(*sides)),
            any(exceeds_thresholds(*each) for each in pair_services(*sides)),
        )  # fmt: skip


Values = tuple["np.ndarray[Any, Any]", float]  # durations in nanoseconds, and the share of errors


def read_services(store: Store, begin_ns: int, end_ns: int) -> dict[str, Values]:
    """Return the durations and the error rate of each service's requests in a window."""
    rows = store.cursor().execute(_SERVICES_SQL, {"begin": begin_ns, "end": end_ns}).fetchall()
    return {service: (np.array(durations), float(np.mean(errors))) for service, durations, errors in rows}


def pair_services(new: dict[str, Values], old: dict[str, Values]) -> Iterator[tuple[Values, Values]]:
    """Yield the values of the services that both windows have, if there are enough."""
    for service in new.keys() & old.keys():
        if min(len(new[service][0]), len(old[service][0])) >= _MIN_VALUES:
            yield new[service], old[service]


def differs_by_mann_whitney(new: Values, old: Values) -> bool:
    """Return whether durations are larger, or errors more frequent, by the rules of a canary judge."""
    from scipy.stats import mannwhitneyu

    is_slower = mannwhitneyu(new[0], old[0], alternative="greater").pvalue < _MANN_WHITNEY_P
    return bool(is_slower) or new[1] > old[1] + _ERROR_POINTS


def exceeds_thresholds(new: Values, old: Values) -> bool:
    """Return whether the 95th percentile grew by half, or the error rate by five points."""
    return bool(np.percentile(new[0], 95) > _THRESHOLD * np.percentile(old[0], 95)) or new[1] > old[1] + _ERROR_POINTS


def summarize(name: str, judged: list[Judged], alarms: list[bool]) -> dict[str, int]:
    """Print what a judge found, and return the numbers."""
    pairs = list(zip(judged, alarms, strict=True))
    found = sum(alarm for each, alarm in pairs if each.is_visible)
    visible = sum(each.is_visible for each, _ in pairs)
    false_alarms = sum(alarm for each, alarm in pairs if each.window["set"] == "aa")
    windows = sum(each.window["set"] == "aa" for each, _ in pairs)
    print(f"{name}: found {found} of {visible} visible faults, {false_alarms} false alarms in {windows} windows")
    return {"found": found, "visible": visible, "false_alarms": false_alarms, "windows": windows}


def main() -> None:
    """Import the recordings, judge their windows and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the recordings and of windows.json")
    folder = parser.parse_args().folder
    windows = json.loads((folder / "windows.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary, Store.open(Path(temporary) / "faults.duckdb") as store:
        files = [path for path in sorted(folder.iterdir()) if ".otlp" in path.name]
        spans = sum(import_file(store, path).spans for path in files)
        print(f"{spans} spans of {len(files)} files")
        derive_calls(store)
        judged = []
        for each in judge_windows(store, windows):
            print_window(each)
            judged.append(each)
    with_data = [each for each in judged if each.has_data]
    print(f"{len(judged) - len(with_data)} of {len(judged)} pairs of windows lack traces on a side; left out below")
    figures = summarize("proof", with_data, [each.outcome is Outcome.FAIL for each in with_data])
    summarize("Mann-Whitney", with_data, [each.mann_whitney for each in with_data])
    summarize("thresholds", with_data, [each.thresholds for each in with_data])
    right_first = sum(each.is_right_first for each in with_data if each.is_visible and each.outcome is Outcome.FAIL)
    inconclusive = sum(each.outcome is Outcome.INCONCLUSIVE for each in with_data)
    print(f"right service first: {right_first} of {figures['found']}; inconclusive: {inconclusive} of {len(with_data)}")
    print(json.dumps(figures | {"right_first": right_first}))


def print_window(judged: Judged) -> None:
    """Print one line about a pair of windows."""
    window = judged.window
    fault = f"{window['target']} {window['type']}" if window["set"] == "fault" else "unchanged"
    visible = window["visible"].partition(" (")[0]
    causes = "; ".join(f"{each.service}: {each.reason}" for each in judged.causes[:1])
    data = "" if judged.has_data else ", a window without traces"
    print(f"{judged.outcome:12} {fault} ({visible or 'no fault'}{data}), {judged.seconds:.1f} s  {causes}", flush=True)


if __name__ == "__main__":
    main()
