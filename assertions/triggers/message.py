"""Common part of the triggers that publish messages to NATS, Kafka and RabbitMQ, each with its own trace."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from spanproof.assertions.triggers.context import TriggerFailed
from spanproof.assertions.triggers.request import TriggerRequest
from spanproof.assertions.triggers.responses import SendRequest

BrokerOpener: TypeAlias = "Callable[[TriggerRequest], AbstractContextManager[SendRequest]]"
TLS_SCHEMES: Final = ("tls", "amqps")
# The client package of each broker; the extra that installs it has the name of the broker.
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


class BrokerAddress(Struct, frozen=True):
    """The address of a broker. `host` is the host to connect to, `tls_name` the name in its certificate."""

    parts: SplitResult
    host: str
    port: int
    tls_name: str

    @property
    def display_name(self) -> str:
        """The address without user and password."""
        return f"{self.tls_name}:{self.port}"

    @property
    def url(self) -> str:
        """The address from the proof, with the checked host."""
        userinfo = self.parts.netloc.rpartition("@")[0]
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.parts._replace(
            netloc=f"{userinfo}@{host}:{self.port}" if userinfo else f"{host}:{self.port}"
        ).geturl()


def read_broker_address(request: TriggerRequest, default: str, default_ports: dict[str, int]) -> BrokerAddress:
    """Return the address that ``broker`` names, checked against the allowed targets; ports default by scheme."""
    text = request.find_text("broker") or default
    option = request.when.option("broker")
    try:
        parts = urlsplit(text)
        port = parts.port or default_ports.get(parts.scheme)
    except ValueError:
        parts, port = urlsplit(""), None
    if not parts.hostname or port is None or parts.scheme not in default_ports:
        raise TriggerFailed(f"`broker` is an address such as {default}", option.at if option else None)
    address = BrokerAddress(parts, parts.hostname, port, parts.hostname)
    return (
        address
        if request.allowed_targets is None
        else replace(address, host=request.allowed_targets.resolve(address.tls_name, port))
    )


def make_tls_context(request: TriggerRequest, address: BrokerAddress) -> ssl.SSLContext | None:
    """Return a TLS context with the authorities of the system or of a file, or None if TLS is not requested.

    The option ``tls`` and the scheme of the address request TLS.
    """
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
    """Return the content and headers of a message, with a content type if the content is JSON."""
    body = request.read_body()
    headers = request.read_headers()
    if body is None:
        return b"", headers
    content, type_ = body
    if request.when.option("json") is not None and "content-type" not in {name.lower() for name in headers}:
        headers["content-type"] = type_
    return content, headers


def describe_error(error: Any) -> str:
    """Return the first line of an error, or its type."""
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__name__
