"""Requests over HTTP, once and many times: what is sent, and how what came back is judged."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from time import sleep

import pytest
from rich.console import Console

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.run.events import RequestProgress
from spanproof.assertions.run.runner import Runner
from spanproof.assertions.triggers.context import TraceContext
from spanproof.assertions.triggers.responses import TriggerResponse
from spanproof.assertions.triggers.sender import Repeat, send_repeatedly
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.modules import load_module
from spanproof.tests.assertions.traced_service import Prove, Traced
from spanproof.tests.assertions.triggers.http_service import Asked, Reply, serve_http


class Shop:
    """Answers 201 and a number that counts up, or what the path says; each request is a span of `shop`."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.bodies: list[bytes] = []
        self.gate = threading.Event()
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, asked: Asked) -> Reply:
        with self._lock:
            self.bodies.append(asked.body)
            number = len(self.bodies)
        if asked.path == "/wait":
            assert self.gate.wait(30)
        bad = asked.path == "/often" and number % 10 == 0
        with self.traced.serve(f"POST {asked.path}", asked.headers) as span:
            if bad:
                span.set_attribute("shop.slow", "yes")
        return Reply(503 if bad else 201, b'{"number": %d, "state": "paid"}' % number)


@pytest.fixture
def shop(trace: Callable[[str], Traced]) -> Iterator[Shop]:
    shop = Shop(trace("shop"))

    with serve_http(shop.answer) as shop.url:
        yield shop
        shop.gate.set()


def test_files_are_sent_as_parts_of_a_form(shop: Shop, prove: Prove, tmp_path: Path) -> None:
    (tmp_path / "card.png").write_bytes(b"\x89PNG")
    (tmp_path / "note.unheard-of").write_text("hello")
    carried = prove(
        f'let name = "card"\nwhen POST "{shop.url}/upload" {{\n'
        '  form { "cart": "c-42" }\n  file "picture": "{name}.png"\n  file "note": "note.unheard-of"\n}\n'
        "expect response.status == 201\nexpect count(shop) == 1"
    )
    assert carried.outcome is Outcome.PASS, carried.reasons
    (headers,), (body,) = shop.traced.seen, shop.bodies
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="cart"\r\n\r\nc-42\r\n' in body
    assert b'name="picture"; filename="card.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n' in body
    assert b'name="note"; filename="note.unheard-of"\r\nContent-Type: application/octet-stream\r\n\r\nhello' in body


def test_a_file_that_is_not_there_is_named_with_its_place(shop: Shop, prove: Prove) -> None:
    carried = prove(f'when POST "{shop.url}/" {{\n  file "a": "none.png"\n}}\nexpect some shop')
    assert carried.outcome is Outcome.ERROR
    assert carried.error.endswith("none.png cannot be read: No such file or directory")
    assert "it.proof:4:3: " in carried.error
    assert shop.bodies == []


def test_each_request_bears_an_id_of_its_own(shop: Shop, prove: Prove) -> None:
    prove(f'when POST "{shop.url}/" {{ header "Baggage": "a=b" }}\nwhen POST "{shop.url}/"\nexpect some shop')
    first, second = shop.traced.seen
    assert first["baggage"] == f"spanproof.run_id=r1.{first['traceparent'][36:52]},a=b"
    assert second["baggage"] == f"spanproof.run_id=r1.{second['traceparent'][36:52]}"
    assert first["traceparent"] != second["traceparent"]


# ## Many times


def test_each_of_many_requests_is_a_trace_of_its_own(shop: Shop, prove: Prove) -> None:
    carried = prove(
        f'when POST "{shop.url}/" {{\n  json {{ "cart": 1 }}\n  repeat 40 at 400/s\n}}\n'
        "expect count(traces) == 40\nexpect count(shop) == 40\nexpect p95(duration(shop)) < 10s\n"
        "expect path shop in >= 99% of traces\nexpect some shop\nexpect response.status == 201\n"
        'expect response.json.state == "paid"\nexpect response.json.number <= 40\nexpect response.duration < 10s'
    )
    assert carried.outcome is Outcome.PASS, carried.reasons
    assert len({headers["traceparent"][3:35] for headers in shop.traced.seen}) == 40
    assert set(shop.bodies) == {b'{"cart": 1}'}
    told = [(each.done, each.total) for each in carried.events if isinstance(each, RequestProgress)]
    assert told[-1] == (40, 40)
    assert told == sorted(told)
    assert carried.finished.duration_ns > 39 / 400 * 1e9


def test_each_trace_and_each_response_must_hold_unless_a_share_is_named(shop: Shop, prove: Prove) -> None:
    carried = prove(
        f'when POST "{shop.url}/often" {{ repeat 20 at 400/s }}\n'
        "expect response.status == 201\nexpect response.status == 201 in >= 90% of traces\n"
        "expect response.status == 201 in >= 91% of traces\n"
        'expect no shop[shop.slow == "yes"]\nexpect no shop[shop.slow == "yes"] in >= 90% of traces\n'
        'expect no shop[shop.slow == "yes"] in >= 91% of traces\n'
    )
    outcomes = [each.verdict.outcome.value for each in carried.finished.judged]
    assert outcomes == ["fail", "pass", "fail", "fail", "pass", "fail"], carried.reasons
    first = carried.finished.judged[0].verdict
    assert (first.n, first.observed) == (20, "503")
    assert first.reason.endswith("; 2 of 20 responses")
    assert carried.finished.judged[1].verdict.reason == "18 of 20 responses hold"


def test_numbers_are_made_of_all_responses(shop: Shop, prove: Prove) -> None:
    carried = prove(
        f'when POST "{shop.url}/often" {{ repeat 20 at 400/s }} as many\n'
        "expect max(response.json.number) == 20\nexpect min(many.response.json.number) == 1\n"
        "expect sum(response.json.number) == 210\nexpect avg(response.json.number) == 10.5\n"
        "expect p95(response.json.number) == 19\nexpect p(95.1, response.json.number) == 20\n"
        "expect p50(response.json.number) == 10\nexpect distinct(response.status) == 2\n"
        "expect stddev(response.json.number) in 5..6\nexpect p95(response.duration) < 10s\n"
        "expect max(duration(shop)) < max(response.duration) * 1\n"
        "expect max(response.json.number) == 21\nexpect max(response.json.none) == 21\n"
    )
    outcomes = [each.verdict.outcome.value for each in carried.finished.judged]
    assert outcomes == ["pass"] * 11 + ["fail", "inconclusive"], carried.reasons
    failed = carried.finished.judged[11].verdict
    assert (failed.observed, failed.n) == ("20", 20)
    assert failed.reason == "max(response.json.number) is 20, not == 21; of 20 responses"


def test_all_traces_are_waited_for(shop: Shop, prove: Prove, store: Store) -> None:
    """The last trace's span comes long after the answers; the claim is judged when it is here."""
    append, held = store.append, []
    lock = threading.Lock()

    def hold(decoded: object) -> None:
        with lock:
            held.append(decoded)
            if len(held) < 5:
                append(decoded)  # type: ignore[arg-type]
            elif len(held) == 5:
                threading.Timer(0.4, append, [decoded]).start()

    store.append = hold  # type: ignore[method-assign]
    carried = prove(f'when POST "{shop.url}/" {{ repeat 5 at 400/s }}\nexpect count(shop) == 5')
    assert carried.outcome is Outcome.PASS, carried.reasons
    assert carried.finished.duration_ns > 400_000_000


def test_one_request_that_fails_is_an_error_that_names_it(prove: Prove) -> None:
    carried = prove('when POST "http://127.0.0.1:1/" { repeat 3 at 100/s }\nexpect some shop')
    assert carried.outcome is Outcome.ERROR
    assert re.match(r"request [123]: POST http://127\.0\.0\.1:1/ failed: ", carried.error), carried.error


def test_a_rate_that_was_kept_is_not() -> None:
    contexts = [TraceContext("r1") for _ in range(3)]
    told: list[int] = []
    answers, late = send_repeatedly(
        lambda each: TriggerResponse(0, each.trace_id, 1), contexts, Repeat(3, 10), sleep, told.append
    )
    assert ([each.body for each in answers], late) == ([each.trace_id for each in contexts], None)
    assert told[-1] == 3


def test_the_terminal_shows_how_far_it_is_and_that_the_rate_was_not_kept(
    shop: Shop, prove: Prove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spanproof.assertions.triggers.sender.MAX_CONCURRENT_REQUESTS", 1)
    threading.Timer(0.5, shop.gate.set).start()
    carried = prove(f'when POST "{shop.url}/wait" {{ repeat 3 at 100/s }}\nexpect count(shop) == 3')
    sending = next(each for each in carried.events if isinstance(each, RequestProgress))
    console = Console(force_terminal=True, file=StringIO(), width=100)
    report = TerminalReport(console)
    for event in (sending, carried.finished):
        report(event)
    assert carried.outcome is Outcome.PASS, carried.reasons
    (note,) = carried.finished.notes
    assert note.startswith("3 requests were begun at ")
    assert note.endswith("/s, not at 100/s")
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert f"it: {sending.done} of 3 requests answered" in shown
    assert note in shown


def test_repeating_ends_when_the_run_is_cancelled(shop: Shop, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "long.proof"
    path.write_text(f'proof "it" {{ when POST "{shop.url}/" {{ repeat 1000 at 2/s }}\n expect some shop }}')
    module = load_module(path)
    runner = Runner(store, lambda _: None)
    ending = threading.Timer(0.3, runner.cancel)
    ending.start()
    assert runner.run([(module, module.proofs[0])]) == (Outcome.ERROR,)
    assert len(shop.bodies) < 5


def test_what_prepares_may_be_repeated(shop: Shop, prove: Prove) -> None:
    carried = prove(
        f'before {{\n  when POST "{shop.url}/seed" {{ repeat 3 at 100/s }}\n}}\n'
        f'when POST "{shop.url}/"\nexpect count(shop) == 1\nexpect response.json.number == 4'
    )
    assert carried.outcome is Outcome.PASS, carried.reasons
    failing = prove(
        f'before {{ when POST "{shop.url}/often" {{ repeat 20 at 400/s }} }}\nwhen POST "{shop.url}/"\nexpect some shop'
    )
    assert failing.error.endswith("`before` was answered with 503")


def test_a_command_may_be_repeated(prove: Prove, tmp_path: Path) -> None:
    out = tmp_path / "out"
    carried = prove(
        f'when run "echo $TRACEPARENT $BAGGAGE >> {out}" {{ repeat 3 at 100/s timeout 5s }}\n'
        "expect response.status == 0"
    )
    assert carried.outcome is Outcome.PASS, carried.reasons
    lines = out.read_text().split("\n")[:-1]
    assert len(set(lines)) == 3
    assert all("spanproof.run_id=r1." in line for line in lines)
    assert "did not end within 0.05s" in prove('when run "sleep 5" { timeout 50ms }\nexpect response.status == 0').error
