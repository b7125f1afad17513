"""Trigger that publishes to RabbitMQ."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pika
from pika.exceptions import AMQPError, UnroutableError

from spanproof.assertions.triggers.context import TraceContext, TriggerFailed
from spanproof.assertions.triggers.message import describe_error, make_tls_context, read_broker_address, read_message
from spanproof.assertions.triggers.request import TriggerRequest
from spanproof.assertions.triggers.responses import SendRequest, TriggerResponse

DEFAULT_BROKER: Final = "amqp://guest:guest@127.0.0.1:5672/"
DEFAULT_PORTS: Final = {"amqp": 5672, "amqps": 5671}

logging.getLogger("pika").setLevel(logging.CRITICAL)  # pika logs every error that it raises


@contextmanager
def open_broker(request: TriggerRequest) -> Iterator[SendRequest]:
    """Connect, and yield a function that publishes once and returns when the message is in a queue."""
    address, routing_key, timeout = (
        read_broker_address(request, DEFAULT_BROKER, DEFAULT_PORTS),
        request.read_target(1),
        request.read_timeout_s(),
    )
    exchange = request.find_text("exchange") or ""
    content, headers = read_message(request)
    content_type = headers.pop("content-type", None)
    parameters = pika.URLParameters(address.url)
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = timeout
    tls = make_tls_context(request, address)
    parameters.ssl_options = pika.SSLOptions(tls, address.tls_name) if tls is not None else None
    try:
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        channel.confirm_delivery()
    except (AMQPError, OSError) as error:
        raise TriggerFailed(f"RabbitMQ at {address.display_name} cannot be reached: {describe_error(error)}") from None
    lock = threading.Lock()  # a connection is not thread-safe

    def send(context: TraceContext) -> TriggerResponse:
        properties = pika.BasicProperties(content_type=content_type, headers=context.merge_headers(headers))
        with lock:
            started_ns = time.perf_counter_ns()
            try:
                channel.basic_publish(exchange, routing_key, content, properties, mandatory=True)
            except UnroutableError:
                source = f"exchange `{exchange}`" if exchange else "the default exchange"
                raise TriggerFailed(
                    f"no queue receives messages of {source} with routing key `{routing_key}`"
                ) from None
            except (AMQPError, OSError) as error:
                raise TriggerFailed(
                    f"RabbitMQ at {address.display_name} did not accept the message: {describe_error(error)}"
                ) from None
            return TriggerResponse(0, "", time.perf_counter_ns() - started_ns)

    try:
        yield send
    finally:
        with suppress(AMQPError, OSError):
            connection.close()
