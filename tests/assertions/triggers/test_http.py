"""HTTP requests, once and repeated: their content, and the judging of their responses."""

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
from spanproof.query_lang.load.modules import load_module
from spanproof.tests.assertions.traced_service import Prove, TracedService
from spanproof.tests.assertions.triggers.http_service import ReceivedRequest, Reply, serve_http


class Shop:
    """A service `shop` that responds with 201 and a counter; `/wait` blocks, `/often` fails every tenth time."""

    def __init__(self, service: TracedService) -> None:
        self.service = service
        self.bodies: list[bytes] = []
        self.gate = threading.Event()
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, request: ReceivedRequest) -> Reply:
        with self._lock:
            self.bodies.append(request.body)
            number = len(self.bodies)
        if request.path == "/wait":
            assert self.gate.wait(30)
        is_failure = request.path == "/often" and number % 10 == 0
        with self.service.serve(f"POST {request.path}", request.headers) as span:
            if is_failure:
                span.set_attribute("shop.slow", "yes")
        return Reply(503 if is_failure else 201, b'{"number": %d, "state": "paid"}' % number)


@pytest.fixture
def shop(trace: Callable[[str], TracedService]) -> Iterator[Shop]:
    shop = Shop(trace("shop"))

    with serve_http(shop.answer) as shop.url:
        yield shop
        shop.gate.set()


def test_files_are_sent_as_form_parts(shop: Shop, prove: Prove, tmp_path: Path) -> None:
    (tmp_path / "card.png").write_bytes(b"\x89PNG")
    (tmp_path / "note.unheard-of").write_text("hello")
    result = prove(
        f'let name = "card"\nwhen POST "{shop.url}/upload" {{\n'
        '  form { "cart": "c-42" }\n  file "picture": "{name}.png"\n  file "note": "note.unheard-of"\n}\n'
        "expect response.status == 201\nexpect count(shop) == 1"
    )
    assert result.outcome is Outcome.PASS, result.reasons
    (headers,), (body,) = shop.service.received_headers, shop.bodies
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="cart"\r\n\r\nc-42\r\n' in body
    assert b'name="picture"; filename="card.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n' in body
    assert b'name="note"; filename="note.unheard-of"\r\nContent-Type: application/octet-stream\r\n\r\nhello' in body


def test_missing_file_is_named_with_position(shop: Shop, prove: Prove) -> None:
    result = prove(f'when POST "{shop.url}/" {{\n  file "a": "none.png"\n}}\nexpect some shop')
    assert result.outcome is Outcome.ERROR
    assert result.error.endswith("none.png cannot be read: No such file or directory")
    assert "it.proof:4:3: " in result.error
    assert shop.bodies == []


def test_each_request_has_own_id(shop: Shop, prove: Prove) -> None:
    prove(f'when POST "{shop.url}/" {{ header "Baggage": "a=b" }}\nwhen POST "{shop.url}/"\nexpect some shop')
    first, second = shop.service.received_headers
    assert first["baggage"] == f"spanproof.run_id=r1.{first['traceparent'][36:52]},a=b"
    assert second["baggage"] == f"spanproof.run_id=r1.{second['traceparent'][36:52]}"
    assert first["traceparent"] != second["traceparent"]


# ## Repeated requests


def test_each_repeated_request_has_own_trace(shop: Shop, prove: Prove) -> None:
    result = prove(
        f'when POST "{shop.url}/" {{\n  json {{ "cart": 1 }}\n  repeat 40 at 400/s\n}}\n'
        "expect count(traces) == 40\nexpect count(shop) == 40\nexpect p95(duration(shop)) < 10s\n"
        "expect path shop in >= 99% of traces\nexpect some shop\nexpect response.status == 201\n"
        'expect response.json.state == "paid"\nexpect response.json.number <= 40\nexpect response.duration < 10s'
    )
    assert result.outcome is Outcome.PASS, result.reasons
    assert len({headers["traceparent"][3:35] for headers in shop.service.received_headers}) == 40
    assert set(shop.bodies) == {b'{"cart": 1}'}
    progress = [(each.done, each.total) for each in result.events if isinstance(each, RequestProgress)]
    assert progress[-1] == (40, 40)
    assert progress == sorted(progress)
    assert result.finished.duration_ns > 39 / 400 * 1e9


def test_every_trace_and_response_must_hold_without_share(shop: Shop, prove: Prove) -> None:
    result = prove(
        f'when POST "{shop.url}/often" {{ repeat 20 at 400/s }}\n'
        "expect response.status == 201\nexpect response.status == 201 in >= 90% of traces\n"
        "expect response.status == 201 in >= 91% of traces\n"
        'expect no shop[shop.slow == "yes"]\nexpect no shop[shop.slow == "yes"] in >= 90% of traces\n'
        'expect no shop[shop.slow == "yes"] in >= 91% of traces\n'
    )
    outcomes = [each.verdict.outcome.value for each in result.finished.judged]
    assert outcomes == ["fail", "pass", "fail", "fail", "pass", "fail"], result.reasons
    first = result.finished.judged[0].verdict
    assert (first.n, first.observed) == (20, "503")
    assert first.reason.endswith("; 2 of 20 responses")
    assert result.finished.judged[1].verdict.reason == "18 of 20 responses hold"


def test_aggregates_use_all_responses(shop: Shop, prove: Prove) -> None:
    result = prove(
        f'when POST "{shop.url}/often" {{ repeat 20 at 400/s }} as many\n'
        "expect max(response.json.number) == 20\nexpect min(many.response.json.number) == 1\n"
        "expect sum(response.json.number) == 210\nexpect avg(response.json.number) == 10.5\n"
        "expect p95(response.json.number) == 19\nexpect p(95.1, response.json.number) == 20\n"
        "expect p50(response.json.number) == 10\nexpect distinct(response.status) == 2\n"
        "expect stddev(response.json.number) in 5..6\nexpect p95(response.duration) < 10s\n"
        "expect max(duration(shop)) < max(response.duration) * 1\n"
        "expect max(response.json.number) == 21\nexpect max(response.json.none) == 21\n"
    )
    outcomes = [each.verdict.outcome.value for each in result.finished.judged]
    assert outcomes == ["pass"] * 11 + ["fail", "inconclusive"], result.reasons
    failed = result.finished.judged[11].verdict
    assert (failed.observed, failed.n) == ("20", 20)
    assert failed.reason == "max(response.json.number) is 20, not == 21; of 20 responses"


def test_all_traces_are_awaited(shop: Shop, prove: Prove, store: Store) -> None:
    """The span of the last trace arrives long after the responses; the claim waits for it."""
    append, received = store.append, []
    lock = threading.Lock()

    def delay_last(decoded: object) -> None:
        with lock:
            received.append(decoded)
            if len(received) < 5:
                append(decoded)  # type: ignore[arg-type]
            elif len(received) == 5:
                threading.Timer(0.4, append, [decoded]).start()

    store.append = delay_last  # type: ignore[method-assign]
    result = prove(f'when POST "{shop.url}/" {{ repeat 5 at 400/s }}\nexpect count(shop) == 5')
    assert result.outcome is Outcome.PASS, result.reasons
    assert result.finished.duration_ns > 400_000_000


def test_failed_request_is_named(prove: Prove) -> None:
    result = prove('when POST "http://127.0.0.1:1/" { repeat 3 at 100/s }\nexpect some shop')
    assert result.outcome is Outcome.ERROR
    assert re.match(r"request [123]: POST http://127\.0\.0\.1:1/ failed: ", result.error), result.error


def test_kept_rate_gives_no_note() -> None:
    contexts = [TraceContext("r1") for _ in range(3)]
    progress: list[int] = []
    responses, note = send_repeatedly(
        lambda each: TriggerResponse(0, each.trace_id, 1), contexts, Repeat(3, 10), sleep, progress.append
    )
    assert ([each.body for each in responses], note) == ([each.trace_id for each in contexts], None)
    assert progress[-1] == 3


def test_terminal_shows_progress_and_missed_rate(shop: Shop, prove: Prove, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanproof.assertions.triggers.sender.MAX_CONCURRENT_REQUESTS", 1)
    threading.Timer(0.5, shop.gate.set).start()
    result = prove(f'when POST "{shop.url}/wait" {{ repeat 3 at 100/s }}\nexpect count(shop) == 3')
    progress = next(each for each in result.events if isinstance(each, RequestProgress))
    console = Console(force_terminal=True, file=StringIO(), width=100)
    report = TerminalReport(console)
    for event in (progress, result.finished):
        report(event)
    assert result.outcome is Outcome.PASS, result.reasons
    (note,) = result.finished.notes
    assert note.startswith("3 requests were started at ")
    assert note.endswith("/s, not at 100/s")
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert f"it: {progress.done} of 3 requests answered" in shown
    assert note in shown


def test_cancel_ends_repetition(shop: Shop, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "long.proof"
    path.write_text(f'proof "it" {{ when POST "{shop.url}/" {{ repeat 1000 at 2/s }}\n expect some shop }}')
    module = load_module(path)
    runner = Runner(store, lambda _: None)
    timer = threading.Timer(0.3, runner.cancel)
    timer.start()
    assert runner.run([(module, module.proofs[0])]) == (Outcome.ERROR,)
    assert len(shop.bodies) < 5


def test_hook_may_be_repeated(shop: Shop, prove: Prove) -> None:
    result = prove(
        f'before {{\n  when POST "{shop.url}/seed" {{ repeat 3 at 100/s }}\n}}\n'
        f'when POST "{shop.url}/"\nexpect count(shop) == 1\nexpect response.json.number == 4'
    )
    assert result.outcome is Outcome.PASS, result.reasons
    failed = prove(
        f'before {{ when POST "{shop.url}/often" {{ repeat 20 at 400/s }} }}\nwhen POST "{shop.url}/"\nexpect some shop'
    )
    assert failed.error.endswith("`before` was answered with 503")


def test_command_may_be_repeated(prove: Prove, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = prove(
        f'when run "echo $TRACEPARENT $BAGGAGE >> {out}" {{ repeat 3 at 100/s timeout 5s }}\n'
        "expect response.status == 0"
    )
    assert result.outcome is Outcome.PASS, result.reasons
    lines = out.read_text().split("\n")[:-1]
    assert len(set(lines)) == 3
    assert all("spanproof.run_id=r1." in line for line in lines)
    assert "did not end within 0.05s" in prove('when run "sleep 5" { timeout 50ms }\nexpect response.status == 0').error
