"""`when publish`: to a real NATS, a real RabbitMQ, and the Kafka protocol as its client library speaks it to itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pika
import pytest
import trustme
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.triggers.allowed_targets import read_allowed_targets
from spanproof.examples.shop.broker import find_nats_server
from spanproof.tests.assertions.traced_service import Prove, Traced, link_to
from spanproof.tests.command import wait_until
from spanproof.tests.ports import find_free_port, listens

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
Taken = tuple[dict[str, str], bytes]


def check_carried(taken: list[Taken], body: bytes) -> None:
    """Check that one message was taken, with the trace in its headers."""
    ((headers, content),) = taken
    assert content == body
    assert headers["x-shop"] == "u-1"
    assert headers["baggage"] == f"spanproof.run_id=r1.{headers['traceparent'][36:52]}"


# ## NATS


@contextmanager
def open_nats(folder: Path, *options: str) -> Iterator[str]:
    """Serve NATS; yields its address."""
    folder.mkdir()
    address = ["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", str(folder)]
    server = subprocess.Popen([find_nats_server(), *address, *options], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: any(each.read_text() for each in folder.glob("*.ports")), "the NATS server listens")
        (file,) = folder.glob("*.ports")
        yield json.loads(file.read_text())["nats"][0].rpartition("/")[2]
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with open_nats(tmp_path_factory.mktemp("nats") / "ports", "--user", "u", "--pass", "secret") as address:
        yield address


@pytest.fixture
def nats_listener(nats_server: str, trace: Callable[[str], Traced]) -> Iterator[list[Taken]]:
    """A service `mail` that takes up what is sent to `orders.>`."""
    mail, taken = trace("mail"), list[Taken]()
    ready, end = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def take(message: Any) -> None:
        headers = dict(message.headers or {})
        taken.append((headers, message.data))
        name = f"process {message.subject}"
        if message.subject == "orders.linked":
            with mail.begin(name, Context(), SpanKind.CONSUMER, [link_to(headers)]):
                return
        with mail.serve(name, headers, SpanKind.CONSUMER):
            pass

    async def listen() -> None:
        client = await nats.connect(f"nats://u:secret@{nats_server}")
        await client.subscribe("orders.>", cb=take)
        await client.flush()
        ready.set()
        await end.wait()
        await client.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(listen()))
    thread.start()
    assert ready.wait(30)
    yield taken
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()


def test_nats_takes_a_message_up(nats_server: str, nats_listener: list[Taken], prove: Prove) -> None:
    carried = prove(
        f'let subject = "placed"\nwhen publish nats "orders.{{subject}}" {{ broker "nats://u:secret@{nats_server}"\n'
        '  header "x-shop": "u-1"\n  json { "cart": 42 }\n}\n'
        'expect response.status == 0\nexpect count(mail "process orders.placed") == 1'
    )
    assert carried.outcome is Outcome.PASS, (carried.reasons, carried.finished.error)
    assert nats_listener[0][0]["content-type"] == "application/json"
    check_carried(nats_listener, b'{"cart": 42}')


@pytest.mark.usefixtures("nats_listener")
def test_a_consumer_may_link_to_the_message_from_a_trace_of_its_own(nats_server: str, prove: Prove) -> None:
    carried = prove(
        f'when publish nats "orders.linked" {{ broker "nats://u:secret@{nats_server}" }}\n'
        "expect count(mail) == 1\nexpect no bank"
    )
    assert carried.outcome is Outcome.PASS, (carried.reasons, carried.finished.error)
    assert carried.finished.notes[0].endswith(" of its own, found by its link")


def test_nats_is_sent_many_over_one_connection(nats_server: str, nats_listener: list[Taken], prove: Prove) -> None:
    carried = prove(
        f'when publish nats "orders.many" {{ broker "nats://u:secret@{nats_server}" body "x" repeat 20 at 400/s }}\n'
        "expect count(traces) == 20\nexpect some mail"
    )
    assert carried.outcome is Outcome.PASS, (carried.reasons, carried.finished.error)
    assert len({headers["traceparent"] for headers, _ in nats_listener}) == 20


@pytest.mark.parametrize(
    ("broker", "subject", "said"),
    [
        ("nats://u:wrong@{}", "a", "NATS at {} cannot be reached: nats: 'Authorization Violation'"),
        ("nats://u:secret@127.0.0.1:1", "a", "NATS at 127.0.0.1:1 cannot be reached: "),
        ("nats://u:secret@{}", "a b", "NATS at {} did not take the message: "),
        ("http://{}", "a", "it.proof:3:25: `broker` is an address such as nats://127.0.0.1:4222"),
    ],
)
def test_what_nats_refuses_is_told_without_the_password(
    nats_server: str, prove: Prove, broker: str, subject: str, said: str
) -> None:
    carried = prove(f'when publish nats "{subject}" {{ broker "{broker.format(nats_server)}" }}\nexpect some mail')
    assert said.format(nats_server) in carried.error
    assert "secret" not in carried.error
    assert "wrong" not in carried.error


def test_a_server_publishes_to_listed_targets_alone(nats_server: str, nats_listener: list[Taken], prove: Prove) -> None:
    text = f'when publish nats "orders.x" {{ broker "nats://u:secret@{nats_server}" }}\nexpect some mail'
    assert prove(text, targets=read_allowed_targets([nats_server])).outcome is Outcome.PASS
    refused = prove(text, targets=read_allowed_targets(["127.0.0.1:1"]))
    assert refused.error == f"{nats_server} is no target that this server may ask"
    for broker in ("kafka", "rabbitmq"):
        refused = prove(f'when publish {broker} "a"\nexpect some mail', targets=read_allowed_targets([nats_server]))
        assert "which this server may not ask" in refused.error or "no target that this server may ask" in refused.error
    assert len(nats_listener) == 1


def test_nats_is_asked_over_tls(prove: Prove, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pem = str(tmp_path / "server.pem")
    with open_nats(tmp_path / "ports", "--tls", "--tlscert", pem, "--tlskey", pem) as address:
        port = address.split(":")[1]
        text = f'when publish nats "a" {{ broker "tls://localhost:{port}" %s }}\nexpect response.status == 0'
        assert prove(text % 'tls "ca.pem"').outcome is Outcome.PASS
        assert "certificate verify failed" in prove(text % "").error
        assert "this file holds no certificates" in prove(text % 'tls "it.proof"').error


@pytest.mark.parametrize(("broker", "module"), [("nats", "nats"), ("kafka", "confluent_kafka"), ("rabbitmq", "pika")])
def test_without_the_client_its_extra_is_named(
    prove: Prove, monkeypatch: pytest.MonkeyPatch, broker: str, module: str
) -> None:
    for known in [module, *(each for each in sys.modules if each.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, known, None)
    monkeypatch.delitem(sys.modules, f"spanproof.assertions.triggers.{broker}", raising=False)
    carried = prove(f'when publish {broker} "a"\nexpect some mail')
    assert carried.error.endswith(f": pip install 'spanproof[{broker}]'")


# ## Kafka


@pytest.fixture(scope="module")
def kafka_server() -> Iterator[str]:
    """Brokers that the client library brings along, on ports of loopback."""
    keeper = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 2, "log_level": 0})
    brokers = keeper.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{each.host}:{each.port}" for each in brokers)
    del keeper


def test_kafka_takes_a_message(kafka_server: str, prove: Prove) -> None:
    carried = prove(
        f'when publish kafka "orders" {{ broker "{kafka_server}"\n  header "x-shop": "u-1"\n  key "c-42"\n'
        '  json { "cart": 42 }\n}\n'
        'expect response.status == 0\nexpect response.json.topic == "orders"\nexpect response.json.offset == 0'
    )
    assert carried.outcome is Outcome.PASS, (carried.reasons, carried.finished.error)
    consumer = Consumer({"bootstrap.servers": kafka_server, "group.id": "mail", "log_level": 0})
    partitions = consumer.list_topics("orders", timeout=10).topics["orders"].partitions
    consumer.assign([TopicPartition("orders", each, OFFSET_BEGINNING) for each in partitions])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert message.error() is None
    assert message.key() == b"c-42"
    headers = {name: value.decode() for name, value in message.headers()}
    assert headers["content-type"] == "application/json"
    check_carried([(headers, message.value())], b'{"cart": 42}')


def test_kafka_that_is_not_there_is_told(prove: Prove) -> None:
    carried = prove('when publish kafka "a" { broker "127.0.0.1:1" timeout 300ms }\nexpect some mail')
    assert carried.error.startswith("Kafka at 127.0.0.1:1 did not take the message: ")
    assert "Connection refused" in carried.error


# ## RabbitMQ


@dataclass(frozen=True)
class Rabbit:
    address: str
    secure_port: int
    authority: Path


@pytest.fixture(scope="module")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """A server with its data in a folder of its own, and its own name server beside it."""
    epmd = shutil.which("epmd")
    if not RABBITMQ.exists() or epmd is None:
        reason = "a RabbitMQ server is needed: apt-get install rabbitmq-server"
        if os.environ.get("TESTS_REQUIRE_ALL"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("rabbitmq")
    port, secure, distribution, names = (find_free_port() for _ in range(4))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    (folder / "rabbitmq.conf").write_text(
        f"listeners.ssl.1 = 127.0.0.1:{secure}\n"
        + "".join(f"ssl_options.{name} = {folder}/server.pem\n" for name in ("certfile", "keyfile", "cacertfile"))
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
    environment = kept | {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"spanproof{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
    }
    # it leaves dumps where it is started
    quiet: Any = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    name_server = subprocess.Popen([epmd, "-port", str(names), "-address", "127.0.0.1"], **quiet)
    try:
        wait_until(lambda: listens(names), "the name server listens")  # else Erlang starts one that outlives it
        server = subprocess.Popen([str(RABBITMQ)], start_new_session=True, **quiet)
        try:
            wait_until(lambda: listens(port) or server.poll() is not None, "RabbitMQ listens")
            assert server.poll() is None, [each.read_text() for each in (folder / "log").glob("*.log")]
            yield Rabbit(f"127.0.0.1:{port}", secure, folder / "ca.pem")
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # a script and what it has started; nothing of it is kept
            server.wait()
            wait_until(lambda: not listens(port), "RabbitMQ is gone")  # before its name server, which it would renew
    finally:
        name_server.kill()
        name_server.wait()


@pytest.fixture
def queue(rabbitmq_server: Rabbit, trace: Callable[[str], Traced]) -> Iterator[list[Taken]]:
    """A service `mail` that takes up what comes into the queue `orders`, also by the exchange `shop`."""
    mail, taken = trace("mail"), list[Taken]()
    connection = pika.BlockingConnection(pika.URLParameters(f"amqp://guest:guest@{rabbitmq_server.address}/"))
    channel = connection.channel()
    channel.queue_declare("orders", auto_delete=True)
    channel.exchange_declare("shop", "topic", auto_delete=True)
    channel.queue_bind("orders", "shop", "order.*")

    def take(_: Any, method: Any, properties: Any, body: bytes) -> None:
        headers = {name: str(value) for name, value in properties.headers.items()}
        taken.append((headers | {"content-type": properties.content_type or ""}, body))
        with mail.serve(f"process {method.routing_key}", headers, SpanKind.CONSUMER):
            pass

    channel.basic_consume("orders", take, auto_ack=True)
    thread = threading.Thread(target=channel.start_consuming)
    thread.start()
    yield taken
    connection.add_callback_threadsafe(channel.stop_consuming)
    thread.join()
    connection.close()


def test_rabbitmq_takes_messages_up_and_refuses_some(
    rabbitmq_server: Rabbit, queue: list[Taken], prove: Prove
) -> None:  # in one, as the server takes seconds to start
    address = rabbitmq_server.address
    carried = prove(
        f'let broker_ = "amqp://guest:guest@{address}/"\n'
        'when publish rabbitmq "orders" { broker broker_\n  header "x-shop": "u-1"\n  json { "cart": 42 }\n}\n'
        'expect response.status == 0\nexpect count(mail "process orders") == 1\n'
        'when publish rabbitmq "order.placed" { broker broker_ exchange "shop" repeat 5 at 200/s }\n'
        'expect count(mail "process order.placed") == 5'
    )
    assert carried.outcome is Outcome.PASS, (carried.reasons, carried.finished.error)
    assert queue[0][0]["content-type"] == "application/json"
    check_carried(queue[:1], b'{"cart": 42}')
    for broker, options, said in (
        (f"guest:guest@{address}", "", "no queue takes what the default exchange is sent as `nobody`"),
        (f"guest:guest@{address}", 'exchange "none"', "no exchange 'none'"),
        (f"guest:wrong@{address}", "", f"RabbitMQ at {address} cannot be reached: "),
    ):
        refused = prove(f'when publish rabbitmq "nobody" {{ broker "amqp://{broker}/" {options} }}\nexpect some mail')
        assert said in refused.error
        assert "wrong" not in refused.error

    secure = f'"amqps://guest:guest@localhost:{rabbitmq_server.secure_port}/"'
    text = f'when publish rabbitmq "orders" {{ broker {secure} %s }}\nexpect response.status == 0'
    assert prove(text % f'tls "{rabbitmq_server.authority}"').outcome is Outcome.PASS
    assert f"RabbitMQ at localhost:{rabbitmq_server.secure_port} cannot be reached: " in prove(text % "").error


def test_rabbitmq_that_is_not_there_is_told(prove: Prove) -> None:
    carried = prove('when publish rabbitmq "a" { broker "amqp://u:secret@127.0.0.1:1/" }\nexpect some mail')
    assert carried.error.startswith("RabbitMQ at 127.0.0.1:1 cannot be reached: ")
    assert "secret" not in carried.error
