"""The demo shop: its services, its faults, and its cleanup."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from spanproof.examples.shop import shop as shop_module
from spanproof.examples.shop.services import SERVICES, Service
from spanproof.examples.shop.shop import Shop, ShopError
from spanproof.tests.command import wait_until
from spanproof.tests.e2e.sink import ReceivedSpan, Sink, open_sink

CART = {"cart": "c-42", "amount": 1999}
# The calls of a checkout without faults.
CHECKOUT_CALLS = Counter({"gateway -> orders": 1, "orders -> inventory": 1, "orders -> payments": 1})
TO_BANK = Counter({"payments -> bank": 1})
TO_BACKUP = Counter({"payments -> bank": 3, "payments -> bank-backup": 1})
MAIL = Counter({"orders -> notifications": 1})


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with open_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def shop(sink: Sink) -> Iterator[Shop]:
    with Shop.start(sink.grpc_address, sink.http_address) as shop:
        yield shop


@pytest.fixture
def customer(shop: Shop) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop.base_url, timeout=10, trust_env=False) as client:
        yield client


def check_out(customer: httpx.Client, fault: str = "", amount: int = 1999) -> tuple[httpx.Response, str]:
    """Send a checkout in a trace of its own; return the response and the trace's id."""
    trace_id = os.urandom(16).hex()
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", "x-user": "u-1"}
    if fault:
        headers["x-fault"] = fault
    return customer.post("/checkout", json=CART | {"amount": amount}, headers=headers), trace_id


def find_calls(spans: list[ReceivedSpan]) -> Counter[str]:
    """Count the calls between services."""
    services = {received.span.span_id: received.service for received in spans}
    pairs = [(services.get(received.span.parent_span_id), received.service) for received in spans]
    return Counter(f"{caller} -> {callee}" for caller, callee in pairs if caller not in (None, callee))


def test_checkout_calls_every_service(customer: httpx.Client, sink: Sink) -> None:
    response, trace_id = check_out(customer)

    assert response.status_code == 201
    order = response.json()["order"]
    assert (order["state"], order["paid_by"]) == ("paid", "bank")
    spans = sink.wait_for(
        trace_id, lambda spans: find_calls(spans) == CHECKOUT_CALLS + TO_BANK + MAIL and len(spans) == 15
    )
    by_name = {(received.service, received.span.name): received for received in spans}
    assert by_name["gateway", "POST /checkout"].attributes["user.id"] == "u-1"
    assert by_name["gateway", "POST /checkout"].attributes["http.response.status_code"] == 201
    insert = by_name["orders", "INSERT orders"].attributes
    assert (insert["db.system.name"], insert["db.namespace"]) == ("sqlite", "shop")
    assert insert["db.query.text"].startswith("INSERT INTO orders")
    publish = by_name["orders", "publish order.created"]
    process = by_name["notifications", "process order.created"]
    assert process.span.parent_span_id == publish.span.span_id
    assert process.attributes["messaging.system"] == "nats"
    assert process.attributes["messaging.destination.name"] == "order.created"
    assert by_name["notifications", "render mail"].span.events[0].name == "mail rendered"


def test_order_can_be_read(customer: httpx.Client) -> None:
    response, _ = check_out(customer)
    order_id = response.json()["order"]["id"]

    assert customer.get(f"/orders/{order_id}").json()["order"] == CART | {"id": order_id, "state": "paid"}
    assert customer.get("/orders/no-such-order").status_code == 404


@pytest.mark.parametrize(
    ("fault", "status", "paid_by", "calls"),
    [
        ("bank=503", 201, "bank-backup", CHECKOUT_CALLS + TO_BACKUP + MAIL),
        ("bank=flaky:2", 201, "bank", CHECKOUT_CALLS + Counter({"payments -> bank": 3}) + MAIL),
        ("bank=slow:800ms", 201, "bank-backup", CHECKOUT_CALLS + TO_BACKUP + MAIL),
        ("bank=down", 502, None, CHECKOUT_CALLS + TO_BACKUP),
        ("inventory=slow:400ms", 201, "bank", CHECKOUT_CALLS + TO_BANK + MAIL),
        ("notifications=off", 201, "bank", CHECKOUT_CALLS + TO_BANK),
        (
            "inventory=legacy, bank=flaky:1",
            201,
            "bank",
            CHECKOUT_CALLS
            - Counter({"orders -> inventory": 1})
            + Counter({"orders -> inventory-legacy": 1, "payments -> bank": 2})
            + MAIL,
        ),
    ],
)
def test_faults_have_their_effects(
    fault: str, status: int, paid_by: str | None, calls: Counter[str], customer: httpx.Client, sink: Sink
) -> None:
    started = time.monotonic()
    response, trace_id = check_out(customer, fault)
    took_s = time.monotonic() - started

    assert response.status_code == status
    assert response.json().get("order", {}).get("paid_by") == paid_by
    sink.wait_for(trace_id, lambda spans: find_calls(spans) == calls)
    if fault == "inventory=slow:400ms":
        assert took_s > 0.4


def test_retries_back_off_and_are_counted(customer: httpx.Client, sink: Sink) -> None:
    _, trace_id = check_out(customer, "bank=slow:800ms")

    spans = sink.wait_for(trace_id, lambda spans: find_calls(spans)["payments -> bank"] == 3)
    attempts = [received for received in spans if received.attributes.get("service.peer.name") == "bank"]
    assert [received.attributes.get("http.request.resend_count") for received in attempts] == [None, 1, 2]
    assert {received.attributes["error.type"] for received in attempts} == {"ReadTimeout"}
    gaps_ns = [
        later.span.start_time_unix_nano - earlier.span.end_time_unix_nano
        for earlier, later in itertools.pairwise(attempts)
    ]
    assert gaps_ns[0] >= 100_000_000
    assert gaps_ns[1] >= 200_000_000


def test_declined_card_is_not_retried(customer: httpx.Client, sink: Sink) -> None:
    response, trace_id = check_out(customer, amount=1_000_000)

    assert response.status_code == 402
    sink.wait_for(trace_id, lambda spans: find_calls(spans) == CHECKOUT_CALLS + TO_BANK)


def test_unknown_fault_is_rejected(customer: httpx.Client) -> None:
    response, _ = check_out(customer, "bank=on-fire")

    assert response.status_code == 400
    assert response.json()["detail"].startswith("unknown fault `bank=on-fire`; known: bank=503, ")


def test_services_use_current_semantic_conventions(customer: httpx.Client, sink: Sink) -> None:
    for fault in ("bank=503", "inventory=legacy"):
        _, trace_id = check_out(customer, fault)
        sink.wait_for(trace_id, lambda spans: find_calls(spans)["orders -> notifications"] == 1)

    assert set(sink.protocols) == {service.name for service in SERVICES}
    assert sink.protocols["orders"] == {"grpc"}
    assert sink.protocols["gateway"] == {"http"}
    for received in sink.all_spans():
        assert {"service.name", "service.version", "service.instance.id"} <= received.resource.keys()
        assert "healthz" not in str(received.attributes.get("url.path"))
        assert not {"http.status_code", "http.method", "http.url"} & received.attributes.keys()


def test_stop_ends_all_processes(sink: Sink, tmp_path: Path) -> None:
    progress: list[str] = []
    shop = Shop.start(sink.grpc_address, sink.http_address, progress.append, log_dir=tmp_path)
    pids = find_descendants(os.getpid()) & find_group_members(set(shop.pids.values()))
    shop.stop()
    shop.stop()

    assert len(pids) == len(SERVICES) + 2  # the broker and its guard
    assert not [pid for pid in pids if is_running(pid)]
    assert progress == ["nats is ready", *(f"{service.name} is ready" for service in SERVICES)]
    assert {path.name for path in tmp_path.glob("*.log")} >= {"gateway.log", "nats.log"}


def test_interrupted_start_ends_all_processes(sink: Sink) -> None:
    before = find_descendants(os.getpid())
    started: set[int] = set()

    def interrupt(message: str) -> None:
        if message == "bank is ready":
            started.update(find_descendants(os.getpid()) - before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Shop.start(sink.grpc_address, sink.http_address, interrupt)
    assert len(started) == len(SERVICES) + 2
    assert not [pid for pid in started if is_running(pid)]


def test_killed_parent_ends_all_processes(sink: Sink, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from spanproof.examples.shop.shop import Shop\n"
        "Shop.start(*sys.argv[1:3], log_dir=pathlib.Path(sys.argv[3]))\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, sink.grpc_address, sink.http_address, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "open\n"
        children = find_descendants(parent.pid)
        parent.kill()
    assert len(children) == len(SERVICES) + 2
    wait_until(lambda: not any(map(is_running, children)), "no process outlives its parent")


def test_failing_service_is_named(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_descendants(os.getpid())
    monkeypatch.setattr(shop_module, "SERVICES", (Service("ghost", "ghost"), *SERVICES))

    with pytest.raises(ShopError, match=r"`ghost` ended with status 2; its last lines:\n(.*\n)*.*invalid choice"):
        Shop.start(sink.grpc_address, sink.http_address)
    assert not find_descendants(os.getpid()) - before


def read_stat(pid: int) -> list[str]:
    """Return the state, parent, process group, … of a process, or nothing if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_running(pid: int) -> bool:
    return read_stat(pid)[:1] not in ([], ["Z"])


def list_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def find_group_members(groups: set[int]) -> set[int]:
    return {pid for pid in list_pids() if (stat := read_stat(pid)) and int(stat[2]) in groups}


def find_descendants(ancestor: int) -> set[int]:
    parents = {pid: int(stat[1]) for pid in list_pids() if (stat := read_stat(pid))}
    descendants: set[int] = set()
    layer = {ancestor}
    while layer := {pid for pid, parent in parents.items() if parent in layer}:
        descendants |= layer
    return descendants
