"""Trigger that publishes to Kafka."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from spanproof.assertions.triggers.context import TraceContext, TriggerFailed
from spanproof.assertions.triggers.message import describe_error, read_message
from spanproof.assertions.triggers.request import TriggerRequest
from spanproof.assertions.triggers.responses import SendRequest, TriggerResponse

DEFAULT_BROKER: Final = "127.0.0.1:9092"
POLL_INTERVAL_S: Final = 0.05

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # the raised error contains the client's last message


@contextmanager
def open_broker(request: TriggerRequest) -> Iterator[SendRequest]:
    """Yield a function that publishes once, and returns when all in-sync replicas have the message."""
    if request.allowed_targets is not None:
        raise TriggerFailed("Kafka brokers refer to other brokers, which this server may not call", request.when.at)
    servers, topic, timeout = (
        request.find_text("broker") or DEFAULT_BROKER,
        request.read_target(1),
        request.read_timeout_s(),
    )
    content, headers = read_message(request)
    key = request.find_text("key")
    client_errors: list[KafkaError] = []
    options: dict[str, Any] = {
        "bootstrap.servers": servers,
        "acks": "all",
        "linger.ms": 0,
        "message.timeout.ms": max(1, int(timeout * 1000)),
        "error_cb": client_errors.append,
    }
    tls = request.when.option("tls")
    if tls is not None:
        options["security.protocol"] = "SSL"
        if tls.value is not None:
            options["ssl.ca.pem"] = request.read_file(tls).decode("ascii", "replace")
    try:
        producer = Producer(options, logger=_log)
    except (KafkaException, ValueError, TypeError) as error:
        raise TriggerFailed(f"Kafka at {servers} cannot be used: {describe_error(error)}") from None

    def send(context: TraceContext) -> TriggerResponse:
        deliveries: SimpleQueue[tuple[KafkaError | None, Message]] = SimpleQueue()
        message_headers: list[tuple[str, str | bytes | None]] = [
            (name, value.encode()) for name, value in context.merge_headers(headers).items()
        ]
        started_ns = time.perf_counter_ns()
        try:
            producer.produce(
                topic,
                content,
                key,
                headers=message_headers,
                on_delivery=lambda error, message: deliveries.put((error, message)),
            )
        except (KafkaException, BufferError, ValueError, TypeError) as error:
            raise TriggerFailed(f"Kafka at {servers} did not accept the message: {describe_error(error)}") from None
        while deliveries.empty():  # ends in any case, because the message has a time limit
            producer.poll(POLL_INTERVAL_S)
        failure, message = deliveries.get()
        if failure is not None:
            reason = client_errors[-1] if client_errors else failure
            raise TriggerFailed(f"Kafka at {servers} did not accept the message: {reason.str()}")
        location = {"topic": topic, "partition": message.partition(), "offset": message.offset()}
        return TriggerResponse(0, json.dumps(location), time.perf_counter_ns() - started_ns)

    yield send
