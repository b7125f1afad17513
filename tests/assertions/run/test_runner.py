"""Many proofs: side by side, again, in order, and cut short."""

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
from spanproof.query_lang.check.modules import ProofModule, load_module_text
from spanproof.tests.assertions.app import App, open_app
from spanproof.tests.command import FREE, find_in_session, wait_until

ONE = """\
proof "number {n}" {{
  when GET "{base}/number/{n}"
  expect every shop has name == "GET /number/{n}"
  expect count(span) == 3
}}
"""
ASKS = 'proof "{name}" {{\n  when GET "{base}/{name}"\n  expect response.status == 200\n}}\n'


def read(text: str, name: str = "many.proof") -> ProofModule:
    module = load_module_text(text, Path(name), name)
    assert module.diagnostics == ()
    return module


def ask(base: str, *names: str) -> ProofModule:
    return read("".join(ASKS.format(name=name, base=base) for name in names))


def run(runner: Runner, *modules: ProofModule) -> tuple[Outcome, ...]:
    return runner.run([(module, proof) for module in modules for proof in module.proofs])


def finished(told: list[RunEvent]) -> list[ProofFinished]:
    return [event for event in told if isinstance(event, ProofFinished)]


@pytest.fixture
def told() -> list[RunEvent]:
    return []


@pytest.fixture
def app(store: Store) -> Iterator[App]:
    with Receiver(store, FREE, FREE) as receiver, open_app(receiver.http_address) as app:
        yield app


def test_a_hundred_proofs_side_by_side_do_not_disturb_each_other(store: Store, app: App) -> None:
    under_way, most = 0, 0
    told: list[RunEvent] = []
    out = io.StringIO()
    report = TerminalReport(Console(file=out, width=200, soft_wrap=True))

    def tell(event: RunEvent) -> None:
        nonlocal under_way, most
        report(event)
        told.append(event)
        under_way += isinstance(event, ProofStarted) - isinstance(event, ProofFinished)
        most = max(most, under_way)

    text = "".join(ONE.format(n=n, base=app.base_url) for n in range(100))
    outcomes = run(Runner(store, tell, workers=16), read(text))
    wrong = [event for event in finished(told) if event.outcome is not Outcome.PASS]
    assert [(event.proof.name, event.error, [each.verdict for each in event.judged]) for event in wrong] == []
    assert outcomes == (Outcome.PASS,) * 100
    assert most >= 16
    assert sorted(app.requests) == sorted(f"/number/{n}" for n in range(100))
    blocks = [block.splitlines() for block in out.getvalue().split("\n\n")][:100]
    assert [lines[0].split("   ")[0] for lines in blocks] == [f"PASS  many.proof::number {n}" for n in range(100)]
    assert {len(lines) for lines in blocks} == {3}


def test_what_becomes_of_proofs_is_told_and_stored_in_their_order(store: Store, told: list[RunEvent]) -> None:
    names = [f"{n}" for n in range(12)]
    waits = "".join(
        f'proof "{n}" {{\n  when run "sleep {0.2 if n == "0" else 0}"\n  expect response.status == 0\n}}\n'
        for n in names
    )

    def tell(event: RunEvent) -> None:
        told.append(event)
        history(event)

    runner = Runner(store, tell, workers=4)
    history = HistoryWriter(store, runner.run_settings.run_id, "run")
    run(runner, read(waits))
    assert [event.proof.name for event in finished(told)] == names
    begun = [event.proof.name for event in told if isinstance(event, ProofStarted)]
    place = told.index(finished(told)[0])
    assert len(begun) > 4, "others went on while the first was waited for"
    assert sum(isinstance(event, ClaimJudged) for event in told[:place]) > 4
    with store.cursor() as cursor:
        stored = read_run(cursor, runner.run_settings.run_id)
    assert stored is not None
    assert [proof.name for proof in stored.proofs] == names


@pytest.mark.parametrize("workers", [1, 3])
def test_failing_fast_begins_no_other(store: Store, app: App, told: list[RunEvent], workers: int) -> None:
    app.fails = {f"/{name}": 1 for name in "abcdefgh"}
    outcomes = run(Runner(store, told.append, fail_fast=True, workers=workers), ask(app.base_url, *"abcdefgh"))
    assert set(outcomes) == {Outcome.FAIL}
    assert 1 <= len(outcomes) <= workers
    assert [event.proof.name for event in finished(told)] == list("abcdefgh")[: len(outcomes)]


def test_a_cancelled_run_ends_those_under_way(store: Store, told: list[RunEvent]) -> None:
    text = "".join(
        f'proof "{n}" {{\n  when trace "{n:032x}"\n  settle within 300s\n  expect some shop\n}}\n' for n in range(9)
    )

    def tell(event: RunEvent) -> None:
        told.append(event)
        if sum(isinstance(each, ProofStarted) for each in told) == 3:
            runner.cancel()

    runner = Runner(store, tell, workers=3)
    outcomes = run(runner, read(text))
    assert outcomes == (Outcome.ERROR,) * len(outcomes)
    assert len(outcomes) < 9
    assert {event.error for event in finished(told)} == {"the run was cancelled"}


def test_ctrl_c_in_the_middle_of_a_query_ends_the_run(
    store: Store, app: App, told: list[RunEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: LiveTraces) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)  # until the other thread has heard of it
        return show(self)

    show = LiveTraces.publish
    monkeypatch.setattr(LiveTraces, "publish", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, a shell has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            run(Runner(store, told.append), read(ONE.format(n=1, base=app.base_url)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert [event.error for event in finished(told)] == ["the run was cancelled"]


def test_who_cancels_waits_only_for_what_cleans_up(store: Store, tmp_path: Path) -> None:
    command = f"(sleep 60; touch {tmp_path}/late) & echo $$ > {tmp_path}/begun; wait"
    text = f'''
        after {{ when run "sleep 0.5; touch {tmp_path}/cleaned-up" }}
        proof "slow" {{ when run "{command}"
          expect response.status == 0 }}
    '''
    runner = Runner(store, lambda _: None)
    with ThreadPoolExecutor() as pool:
        outcomes = pool.submit(run, runner, read(text))
        wait_until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text(), "it has begun")
        runner.cancel()
        assert outcomes.result(10) == (Outcome.ERROR,)
    assert (tmp_path / "cleaned-up").exists()
    assert find_in_session(int((tmp_path / "begun").read_text())) == set()


def test_a_bug_in_one_ends_the_others(store: Store, tmp_path: Path) -> None:
    text = f'after {{\n  when run "touch {tmp_path}/cleaned-up"\n}}\n' + "".join(
        f'proof "{n}" {{\n  when trace "{n:032x}"\n  settle within 300s\n  expect some shop\n}}\n' for n in range(3)
    )

    def tell(event: RunEvent) -> None:
        if isinstance(event, WaitingForSpans) and event.proof.name == "2":
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(Runner(store, tell, workers=3), read(text))
    assert (tmp_path / "cleaned-up").exists()


# ## Again


def test_a_proof_that_passes_when_tried_again_is_flaky(store: Store, app: App, told: list[RunEvent]) -> None:
    app.fails = {"/shaky": 2, "/broken": 9}
    runner = Runner(store, told.append, retries=2)
    history = HistoryWriter(store, runner.run_settings.run_id, "run")
    assert run(runner, ask(app.base_url, "steady", "shaky", "broken")) == (Outcome.PASS, Outcome.PASS, Outcome.FAIL)
    assert app.requests == ["/steady", *["/shaky"] * 3, *["/broken"] * 3]
    assert [event.flaky for event in finished(told)] == [False, True, False]
    assert [[each.outcome for each in event.tries] for event in finished(told)] == [
        [], [Outcome.FAIL] * 2, [Outcome.FAIL] * 2,
    ]  # fmt: skip
    assert next(event for event in told if isinstance(event, RunFinished)).flaky == 1
    for event in told:
        history(event)
    with store.cursor() as cursor:
        stored = read_run(cursor, runner.run_settings.run_id)
        assert {each.name: each.flaky for each in list_proof_histories(cursor, 0)} == {
            "steady": False, "shaky": True, "broken": False,
        }  # fmt: skip
    assert stored == history.document
    assert [each.outcome for each in history.document.proofs[1].tries] == [Outcome.FAIL] * 2
    assert history.document.proofs[1].tries[0].verdicts[0].reason == "response.status is 503, not == 200"


def test_what_was_waited_for_is_kept(store: Store, app: App, told: list[RunEvent]) -> None:
    text = ONE.format(n=1, base=app.base_url).replace("{", "{\n  settle within 30s quiet 1s", 1)
    run(Runner(store, told.append), read(text))
    (event,) = finished(told)
    assert event.waits
    assert [wait.at_ns for wait in event.waits] == sorted(wait.at_ns for wait in event.waits)
    assert len({(wait.open_claims, wait.missing) for wait in event.waits}) == len(event.waits)
    assert 0 < event.waits[-1].at_ns < event.duration_ns
