"""Publishes messages that start a trace of their own: what NATS, Kafka and RabbitMQ have in common."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from spanproof.assertions.triggers.context import TriggerFailed
from spanproof.assertions.triggers.request import TriggerRequest
from spanproof.assertions.triggers.responses import SendRequest

BrokerOpener: TypeAlias = "Callable[[TriggerRequest], AbstractContextManager[SendRequest]]"
TLS_SCHEMES: Final = ("tls", "amqps")
# What each is installed with: the name of the extra is that of the broker, too.
CLIENT_PACKAGES: Final = {"nats": "nats-py", "kafka": "confluent-kafka", "rabbitmq": "pika"}


@contextmanager
def open_broker(request: TriggerRequest) -> Iterator[SendRequest]:
    """Connect to the broker that a ``when publish`` names."""
    broker = request.read_target(0)
    try:
        module = import_module(f"spanproof.assertions.triggers.{broker}")
    except ModuleNotFoundError:
        raise TriggerFailed(
            f"`when publish {broker}` needs {CLIENT_PACKAGES[broker]}: pip install 'spanproof[{broker}]'"
        ) from None
    open_: BrokerOpener = module.open_broker
    with open_(request) as send:
        yield send


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is. `host` is what is asked, `name` what its certificate must be for."""

    parts: SplitResult
    host: str
    port: int
    tls_name: str

    @property
    def display_name(self) -> str:
        """The address without who asks, and by which password."""
        return f"{self.tls_name}:{self.port}"

    @property
    def url(self) -> str:
        """The address with all that the proof says, leading to the host that was checked."""
        who = self.parts.netloc.rpartition("@")[0]
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.parts._replace(netloc=f"{who}@{host}:{self.port}" if who else f"{host}:{self.port}").geturl()


def read_broker_address(request: TriggerRequest, default: str, default_ports: dict[str, int]) -> BrokerAddress:
    """Return the address that ``broker`` names, checked where only some may be asked; `ports` are those of a scheme."""
    text = request.find_text("broker") or default
    option = request.when.option("broker")
    try:
        parts = urlsplit(text)
        port = parts.port or default_ports.get(parts.scheme)
    except ValueError:
        parts, port = urlsplit(""), None
    if not parts.hostname or port is None or parts.scheme not in default_ports:
        raise TriggerFailed(f"`broker` is an address such as {default}", option.at if option else None)
    found = BrokerAddress(parts, parts.hostname, port, parts.hostname)
    return (
        found
        if request.allowed_targets is None
        else replace(found, host=request.allowed_targets.resolve(found.tls_name, port))
    )


def make_tls_context(request: TriggerRequest, address: BrokerAddress) -> ssl.SSLContext | None:
    """Make what TLS needs, where ``tls`` or the address's scheme ask for it: the system's authorities, or a file's."""
    option = request.when.option("tls")
    if option is None and address.parts.scheme not in TLS_SCHEMES:
        return None
    try:
        if option is None or option.value is None:
            return ssl.create_default_context()
        return ssl.create_default_context(cadata=request.read_file(option).decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError):
        raise TriggerFailed("this file holds no certificates", option.at if option else None) from None


def read_message(request: TriggerRequest) -> tuple[bytes, dict[str, str]]:
    """Return the content of a message, and its headers: with the type of a JSON text, where it is one."""
    body = request.read_body()
    headers = request.read_headers()
    if body is None:
        return b"", headers
    content, type_ = body
    if request.when.option("json") is not None and "content-type" not in {name.lower() for name in headers}:
        headers["content-type"] = type_
    return content, headers


def describe_error(error: Any) -> str:
    """Say what went wrong, in a line."""
    said = str(error).splitlines()
    return said[0] if said and said[0] else type(error).__name__
