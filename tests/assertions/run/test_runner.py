"""Several proofs: in parallel, with retries, in order, and cancelled."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports.history import HistoryWriter, list_proof_histories, read_run
from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.run.events import (
    ClaimJudged,
    ProofFinished,
    ProofStarted,
    RunEvent,
    RunFinished,
    WaitingForSpans,
)
from spanproof.assertions.run.runner import Runner
from spanproof.collector.receive.receiver import Receiver
from spanproof.collector.storage.store import Store
from spanproof.collector.traces.live_traces import LiveTraces
from spanproof.query_lang.load.modules import ProofModule, load_module_text
from spanproof.tests.assertions.app import App, open_app
from spanproof.tests.command import FREE, find_in_session, wait_until

PROOF = """\
proof "number {n}" {{
  when GET "{base}/number/{n}"
  expect every shop has name == "GET /number/{n}"
  expect count(span) == 3
}}
"""
STATUS_PROOF = 'proof "{name}" {{\n  when GET "{base}/{name}"\n  expect response.status == 200\n}}\n'


def load(text: str, name: str = "many.proof") -> ProofModule:
    module = load_module_text(text, Path(name), name)
    assert module.diagnostics == ()
    return module


def make_proofs(base: str, *names: str) -> ProofModule:
    return load("".join(STATUS_PROOF.format(name=name, base=base) for name in names))


def run(runner: Runner, *modules: ProofModule) -> tuple[Outcome, ...]:
    return runner.run([(module, proof) for module in modules for proof in module.proofs])


def list_finished(events: list[RunEvent]) -> list[ProofFinished]:
    return [event for event in events if isinstance(event, ProofFinished)]


@pytest.fixture
def events() -> list[RunEvent]:
    return []


@pytest.fixture
def app(store: Store) -> Iterator[App]:
    with Receiver(store, FREE, FREE) as receiver, open_app(receiver.http_address) as app:
        yield app


def test_parallel_proofs_are_independent(store: Store, app: App) -> None:
    running, maximum = 0, 0
    events: list[RunEvent] = []
    out = io.StringIO()
    report = TerminalReport(Console(file=out, width=200, soft_wrap=True))

    def emit(event: RunEvent) -> None:
        nonlocal running, maximum
        report(event)
        events.append(event)
        running += isinstance(event, ProofStarted) - isinstance(event, ProofFinished)
        maximum = max(maximum, running)

    text = "".join(PROOF.format(n=n, base=app.base_url) for n in range(100))
    outcomes = run(Runner(store, emit, workers=16), load(text))
    not_passed = [event for event in list_finished(events) if event.outcome is not Outcome.PASS]
    assert [(event.proof.name, event.error, [each.verdict for each in event.judged]) for event in not_passed] == []
    assert outcomes == (Outcome.PASS,) * 100
    assert maximum >= 16
    assert sorted(app.requests) == sorted(f"/number/{n}" for n in range(100))
    blocks = [block.splitlines() for block in out.getvalue().split("\n\n")][:100]
    assert [lines[0].split("   ")[0] for lines in blocks] == [f"PASS  many.proof::number {n}" for n in range(100)]
    assert {len(lines) for lines in blocks} == {3}


def test_results_are_reported_and_stored_in_order(store: Store, events: list[RunEvent]) -> None:
    names = [f"{n}" for n in range(12)]
    waits = "".join(
        f'proof "{n}" {{\n  when run "sleep {0.2 if n == "0" else 0}"\n  expect response.status == 0\n}}\n'
        for n in names
    )

    def emit(event: RunEvent) -> None:
        events.append(event)
        history(event)

    runner = Runner(store, emit, workers=4)
    history = HistoryWriter(store, runner.run_settings.run_id, "run")
    run(runner, load(waits))
    assert [event.proof.name for event in list_finished(events)] == names
    started = [event.proof.name for event in events if isinstance(event, ProofStarted)]
    first_finished = events.index(list_finished(events)[0])
    assert len(started) > 4, "other proofs run while the first one waits"
    assert sum(isinstance(event, ClaimJudged) for event in events[:first_finished]) > 4
    with store.cursor() as cursor:
        stored = read_run(cursor, runner.run_settings.run_id)
    assert stored is not None
    assert [proof.name for proof in stored.proofs] == names


@pytest.mark.parametrize("workers", [1, 3])
def test_fail_fast_starts_no_further_proof(store: Store, app: App, events: list[RunEvent], workers: int) -> None:
    app.failures = {f"/{name}": 1 for name in "abcdefgh"}
    proofs = make_proofs(app.base_url, *"abcdefgh")
    outcomes = run(Runner(store, events.append, fail_fast=True, workers=workers), proofs)
    assert set(outcomes) == {Outcome.FAIL}
    assert 1 <= len(outcomes) <= workers
    assert [event.proof.name for event in list_finished(events)] == list("abcdefgh")[: len(outcomes)]


def test_cancel_ends_running_proofs(store: Store, events: list[RunEvent]) -> None:
    text = "".join(
        f'proof "{n}" {{\n  when trace "{n:032x}"\n  settle within 300s\n  expect some shop\n}}\n' for n in range(9)
    )

    def emit(event: RunEvent) -> None:
        events.append(event)
        if sum(isinstance(each, ProofStarted) for each in events) == 3:
            runner.cancel()

    runner = Runner(store, emit, workers=3)
    outcomes = run(runner, load(text))
    assert outcomes == (Outcome.ERROR,) * len(outcomes)
    assert len(outcomes) < 9
    assert {event.error for event in list_finished(events)} == {"the run was cancelled"}


def test_ctrl_c_during_query_ends_run(
    store: Store, app: App, events: list[RunEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: LiveTraces) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)  # until the signal reaches the main thread
        return publish(self)

    publish = LiveTraces.publish
    monkeypatch.setattr(LiveTraces, "publish", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores SIGINT in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            run(Runner(store, events.append), load(PROOF.format(n=1, base=app.base_url)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert [event.error for event in list_finished(events)] == ["the run was cancelled"]


def test_cancel_waits_only_for_cleanup(store: Store, tmp_path: Path) -> None:
    command = f"(sleep 60; touch {tmp_path}/late) & echo $$ > {tmp_path}/started; wait"
    text = f'''
        after {{ when run "sleep 0.5; touch {tmp_path}/cleaned-up" }}
        proof "slow" {{ when run "{command}"
          expect response.status == 0 }}
    '''
    runner = Runner(store, lambda _: None)
    with ThreadPoolExecutor() as pool:
        outcomes = pool.submit(run, runner, load(text))
        wait_until(
            lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text(), "the command has started"
        )
        runner.cancel()
        assert outcomes.result(10) == (Outcome.ERROR,)
    assert (tmp_path / "cleaned-up").exists()
    assert find_in_session(int((tmp_path / "started").read_text())) == set()


def test_bug_in_one_proof_ends_others(store: Store, tmp_path: Path) -> None:
    text = f'after {{\n  when run "touch {tmp_path}/cleaned-up"\n}}\n' + "".join(
        f'proof "{n}" {{\n  when trace "{n:032x}"\n  settle within 300s\n  expect some shop\n}}\n' for n in range(3)
    )

    def emit(event: RunEvent) -> None:
        if isinstance(event, WaitingForSpans) and event.proof.name == "2":
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(Runner(store, emit, workers=3), load(text))
    assert (tmp_path / "cleaned-up").exists()


# ## Retries


def test_proof_that_passes_on_retry_is_flaky(store: Store, app: App, events: list[RunEvent]) -> None:
    app.failures = {"/shaky": 2, "/broken": 9}
    runner = Runner(store, events.append, retries=2)
    history = HistoryWriter(store, runner.run_settings.run_id, "run")
    assert run(runner, make_proofs(app.base_url, "steady", "shaky", "broken")) == (
        Outcome.PASS,
        Outcome.PASS,
        Outcome.FAIL,
    )
    assert app.requests == ["/steady", *["/shaky"] * 3, *["/broken"] * 3]
    assert [event.flaky for event in list_finished(events)] == [False, True, False]
    assert [[each.outcome for each in event.tries] for event in list_finished(events)] == [
        [], [Outcome.FAIL] * 2, [Outcome.FAIL] * 2,
    ]  # fmt: skip
    assert next(event for event in events if isinstance(event, RunFinished)).flaky == 1
    for event in events:
        history(event)
    with store.cursor() as cursor:
        stored = read_run(cursor, runner.run_settings.run_id)
        assert {each.name: each.flaky for each in list_proof_histories(cursor, 0)} == {
            "steady": False, "shaky": True, "broken": False,
        }  # fmt: skip
    assert stored == history.document
    assert [each.outcome for each in history.document.proofs[1].tries] == [Outcome.FAIL] * 2
    assert history.document.proofs[1].tries[0].verdicts[0].reason == "response.status is 503, not == 200"


def test_waits_are_recorded(store: Store, app: App, events: list[RunEvent]) -> None:
    text = PROOF.format(n=1, base=app.base_url).replace("{", "{\n  settle within 30s quiet 1s", 1)
    run(Runner(store, events.append), load(text))
    (event,) = list_finished(events)
    assert event.waits
    assert [wait.at_ns for wait in event.waits] == sorted(wait.at_ns for wait in event.waits)
    assert len({(wait.open_claims, wait.missing) for wait in event.waits}) == len(event.waits)
    assert 0 < event.waits[-1].at_ns < event.duration_ns
