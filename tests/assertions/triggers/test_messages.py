"""`when publish` to a real NATS server, a real RabbitMQ server, and the mock brokers of the Kafka client library."""

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
from spanproof.tests.assertions.traced_service import Prove, TracedService, link_to
from spanproof.tests.command import wait_until
from spanproof.tests.ports import find_free_port, listens

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
ReceivedMessage = tuple[dict[str, str], bytes]


def check_message(received: list[ReceivedMessage], body: bytes) -> None:
    """Check that one message was received, with the trace context in its headers."""
    ((headers, content),) = received
    assert content == body
    assert headers["x-shop"] == "u-1"
    assert headers["baggage"] == f"spanproof.run_id=r1.{headers['traceparent'][36:52]}"


# ## NATS


@contextmanager
def open_nats(folder: Path, *options: str) -> Iterator[str]:
    """Start a NATS server; yield its address."""
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
def nats_listener(nats_server: str, trace: Callable[[str], TracedService]) -> Iterator[list[ReceivedMessage]]:
    """A service `mail` that consumes the messages to `orders.>`."""
    mail, received = trace("mail"), list[ReceivedMessage]()
    ready, end = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def consume(message: Any) -> None:
        headers = dict(message.headers or {})
        received.append((headers, message.data))
        name = f"process {message.subject}"
        if message.subject == "orders.linked":
            with mail.begin(name, Context(), SpanKind.CONSUMER, [link_to(headers)]):
                return
        with mail.serve(name, headers, SpanKind.CONSUMER):
            pass

    async def listen() -> None:
        client = await nats.connect(f"nats://u:secret@{nats_server}")
        await client.subscribe("orders.>", cb=consume)
        await client.flush()
        ready.set()
        await end.wait()
        await client.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(listen()))
    thread.start()
    assert ready.wait(30)
    yield received
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()


def test_nats_message_is_delivered(nats_server: str, nats_listener: list[ReceivedMessage], prove: Prove) -> None:
    result = prove(
        f'let subject = "placed"\nwhen publish nats "orders.{{subject}}" {{ broker "nats://u:secret@{nats_server}"\n'
        '  header "x-shop": "u-1"\n  json { "cart": 42 }\n}\n'
        'expect response.status == 0\nexpect count(mail "process orders.placed") == 1'
    )
    assert result.outcome is Outcome.PASS, (result.reasons, result.finished.error)
    assert nats_listener[0][0]["content-type"] == "application/json"
    check_message(nats_listener, b'{"cart": 42}')


@pytest.mark.usefixtures("nats_listener")
def test_consumer_may_link_from_own_trace(nats_server: str, prove: Prove) -> None:
    result = prove(
        f'when publish nats "orders.linked" {{ broker "nats://u:secret@{nats_server}" }}\n'
        "expect count(mail) == 1\nexpect no bank"
    )
    assert result.outcome is Outcome.PASS, (result.reasons, result.finished.error)
    assert result.finished.notes[0].endswith(", found by its link")


def test_nats_connection_is_reused(nats_server: str, nats_listener: list[ReceivedMessage], prove: Prove) -> None:
    result = prove(
        f'when publish nats "orders.many" {{ broker "nats://u:secret@{nats_server}" body "x" repeat 20 at 400/s }}\n'
        "expect count(traces) == 20\nexpect some mail"
    )
    assert result.outcome is Outcome.PASS, (result.reasons, result.finished.error)
    assert len({headers["traceparent"] for headers, _ in nats_listener}) == 20


@pytest.mark.parametrize(
    ("broker", "subject", "message"),
    [
        ("nats://u:wrong@{}", "a", "NATS at {} cannot be reached: nats: 'Authorization Violation'"),
        ("nats://u:secret@127.0.0.1:1", "a", "NATS at 127.0.0.1:1 cannot be reached: "),
        ("nats://u:secret@{}", "a b", "NATS at {} did not accept the message: "),
        ("http://{}", "a", "it.proof:3:25: `broker` is an address such as nats://127.0.0.1:4222"),
    ],
)
def test_nats_errors_hide_password(nats_server: str, prove: Prove, broker: str, subject: str, message: str) -> None:
    result = prove(f'when publish nats "{subject}" {{ broker "{broker.format(nats_server)}" }}\nexpect some mail')
    assert message.format(nats_server) in result.error
    assert "secret" not in result.error
    assert "wrong" not in result.error


def test_broker_must_be_listed(nats_server: str, nats_listener: list[ReceivedMessage], prove: Prove) -> None:
    text = f'when publish nats "orders.x" {{ broker "nats://u:secret@{nats_server}" }}\nexpect some mail'
    assert prove(text, targets=read_allowed_targets([nats_server])).outcome is Outcome.PASS
    rejected = prove(text, targets=read_allowed_targets(["127.0.0.1:1"]))
    assert rejected.error == f"{nats_server} is not a target that this server may call"
    for broker in ("kafka", "rabbitmq"):
        rejected = prove(f'when publish {broker} "a"\nexpect some mail', targets=read_allowed_targets([nats_server]))
        assert (
            "which this server may not call" in rejected.error
            or "not a target that this server may call" in rejected.error
        )
    assert len(nats_listener) == 1


def test_nats_over_tls(prove: Prove, tmp_path: Path) -> None:
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
def test_missing_client_names_extra(prove: Prove, monkeypatch: pytest.MonkeyPatch, broker: str, module: str) -> None:
    for module_name in [module, *(each for each in sys.modules if each.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, module_name, None)
    monkeypatch.delitem(sys.modules, f"spanproof.assertions.triggers.{broker}", raising=False)
    result = prove(f'when publish {broker} "a"\nexpect some mail')
    assert result.error.endswith(f": pip install 'spanproof[{broker}]'")


# ## Kafka


@pytest.fixture(scope="module")
def kafka_server() -> Iterator[str]:
    """Mock brokers of the client library, on loopback ports."""
    owner = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 2, "log_level": 0})
    brokers = owner.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{each.host}:{each.port}" for each in brokers)
    del owner


def test_kafka_message_is_delivered(kafka_server: str, prove: Prove) -> None:
    result = prove(
        f'when publish kafka "orders" {{ broker "{kafka_server}"\n  header "x-shop": "u-1"\n  key "c-42"\n'
        '  json { "cart": 42 }\n}\n'
        'expect response.status == 0\nexpect response.json.topic == "orders"\nexpect response.json.offset == 0'
    )
    assert result.outcome is Outcome.PASS, (result.reasons, result.finished.error)
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
    check_message([(headers, message.value())], b'{"cart": 42}')


def test_unreachable_kafka_is_reported(prove: Prove) -> None:
    result = prove('when publish kafka "a" { broker "127.0.0.1:1" timeout 300ms }\nexpect some mail')
    assert result.error.startswith("Kafka at 127.0.0.1:1 did not accept the message: ")
    assert "Connection refused" in result.error


# ## RabbitMQ


@dataclass(frozen=True)
class Rabbit:
    address: str
    secure_port: int
    authority: Path


@pytest.fixture(scope="module")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """A server with its own data folder and its own name server."""
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
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
    environment = inherited | {
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
    # the server writes dumps to its working directory
    quiet: Any = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    name_server = subprocess.Popen([epmd, "-port", str(names), "-address", "127.0.0.1"], **quiet)
    try:
        wait_until(lambda: listens(names), "the name server listens")  # else Erlang starts one that outlives the server
        server = subprocess.Popen([str(RABBITMQ)], start_new_session=True, **quiet)
        try:
            wait_until(lambda: listens(port) or server.poll() is not None, "RabbitMQ listens")
            assert server.poll() is None, [each.read_text() for each in (folder / "log").glob("*.log")]
            yield Rabbit(f"127.0.0.1:{port}", secure, folder / "ca.pem")
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # the script and its child processes; no data is kept
            server.wait()
            wait_until(
                lambda: not listens(port), "RabbitMQ has ended"
            )  # before the name server, which RabbitMQ would restart
    finally:
        name_server.kill()
        name_server.wait()


@pytest.fixture
def queue(rabbitmq_server: Rabbit, trace: Callable[[str], TracedService]) -> Iterator[list[ReceivedMessage]]:
    """A service `mail` that consumes the queue `orders`, which is also bound to the exchange `shop`."""
    mail, received = trace("mail"), list[ReceivedMessage]()
    connection = pika.BlockingConnection(pika.URLParameters(f"amqp://guest:guest@{rabbitmq_server.address}/"))
    channel = connection.channel()
    channel.queue_declare("orders", auto_delete=True)
    channel.exchange_declare("shop", "topic", auto_delete=True)
    channel.queue_bind("orders", "shop", "order.*")

    def consume(_: Any, method: Any, properties: Any, body: bytes) -> None:
        headers = {name: str(value) for name, value in properties.headers.items()}
        received.append((headers | {"content-type": properties.content_type or ""}, body))
        with mail.serve(f"process {method.routing_key}", headers, SpanKind.CONSUMER):
            pass

    channel.basic_consume("orders", consume, auto_ack=True)
    thread = threading.Thread(target=channel.start_consuming)
    thread.start()
    yield received
    connection.add_callback_threadsafe(channel.stop_consuming)
    thread.join()
    connection.close()


def test_rabbitmq_delivers_and_rejects_messages(
    rabbitmq_server: Rabbit, queue: list[ReceivedMessage], prove: Prove
) -> None:  # one test, because the server takes seconds to start
    address = rabbitmq_server.address
    result = prove(
        f'let broker_ = "amqp://guest:guest@{address}/"\n'
        'when publish rabbitmq "orders" { broker broker_\n  header "x-shop": "u-1"\n  json { "cart": 42 }\n}\n'
        'expect response.status == 0\nexpect count(mail "process orders") == 1\n'
        'when publish rabbitmq "order.placed" { broker broker_ exchange "shop" repeat 5 at 200/s }\n'
        'expect count(mail "process order.placed") == 5'
    )
    assert result.outcome is Outcome.PASS, (result.reasons, result.finished.error)
    assert queue[0][0]["content-type"] == "application/json"
    check_message(queue[:1], b'{"cart": 42}')
    for broker, options, message in (
        (f"guest:guest@{address}", "", "no queue receives messages of the default exchange with routing key `unbound`"),
        (f"guest:guest@{address}", 'exchange "none"', "no exchange 'none'"),
        (f"guest:wrong@{address}", "", f"RabbitMQ at {address} cannot be reached: "),
    ):
        rejected = prove(f'when publish rabbitmq "unbound" {{ broker "amqp://{broker}/" {options} }}\nexpect some mail')
        assert message in rejected.error
        assert "wrong" not in rejected.error

    secure = f'"amqps://guest:guest@localhost:{rabbitmq_server.secure_port}/"'
    text = f'when publish rabbitmq "orders" {{ broker {secure} %s }}\nexpect response.status == 0'
    assert prove(text % f'tls "{rabbitmq_server.authority}"').outcome is Outcome.PASS
    assert f"RabbitMQ at localhost:{rabbitmq_server.secure_port} cannot be reached: " in prove(text % "").error


def test_unreachable_rabbitmq_is_reported(prove: Prove) -> None:
    result = prove('when publish rabbitmq "a" { broker "amqp://u:secret@127.0.0.1:1/" }\nexpect some mail')
    assert result.error.startswith("RabbitMQ at 127.0.0.1:1 cannot be reached: ")
    assert "secret" not in result.error
