"""Counters in spans that tell how many attempts came before: one table for all clients and queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

# What a counter counts. `retries`: n means that n attempts came before. `attempts`: n is the number of this attempt, so
# n - 1 came before. `resends`: as `retries`, but redirects and requests for credentials are counted, too.
Counted = Literal["retries", "attempts", "resends"]

RETRY_COUNTERS: Final[Mapping[str, Counted]] = {
    # HTTP, https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/
    "http.request.resend_count": "resends",
    "http.resend_count": "resends",
    # gRPC, https://github.com/grpc/proposal/blob/master/A72-open-telemetry-tracing.md
    "previous-rpc-attempts": "retries",
    "grpc.previous_rpc_attempts": "retries",
    "rpc.grpc.request.metadata.grpc-previous-rpc-attempts": "retries",
    # botocore's RetryAttempts
    "retry_attempts": "retries",
    "aws.retry_attempts": "retries",
    # Envoy's tag of an upstream span
    "retry.count": "retries",
    # Celery's request.retries
    "celery.retries": "retries",
    # BullMQ
    "bullmq.job.attempts.made": "attempts",
    # SQS: how often the message was received
    "ApproximateReceiveCount": "attempts",
    "aws.sqs.approximate_receive_count": "attempts",
    "messaging.aws_sqs.approximate_receive_count": "attempts",
    "messaging.message.delivery_count": "attempts",
    "messaging.servicebus.message.delivery_count": "attempts",
    "messaging.gcp_pubsub.message.delivery_attempt": "attempts",
    # quorum queues of RabbitMQ count the deliveries before this one
    "x-delivery-count": "retries",
    "messaging.rabbitmq.message.delivery_count": "retries",
    # NATS JetStream
    "messaging.nats.num_delivered": "attempts",
    # Spring for Apache Kafka
    "kafka_deliveryAttempt": "attempts",
    # JMS 2.0
    "JMSXDeliveryCount": "attempts",
}
