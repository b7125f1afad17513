"""Which attributes an application sets, as opposed to its instrumentation."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

# Namespaces of the semantic conventions, and of instrumentation outside them, in which applications set no attributes.
# https://opentelemetry.io/docs/specs/semconv/registry/attributes/
_INSTRUMENTATION_NAMESPACES: Final = frozenset({
    "android", "aspnetcore", "async", "aws", "az", "azure", "browser", "bullmq", "cassandra", "celery", "cicd",
    "client", "cloud", "cloudevents", "cloudfoundry", "code", "connection", "container", "cpu", "cpython", "db",
    "deployment", "disk", "dns", "dotnet", "elasticsearch", "envoy", "error", "exception", "express", "faas",
    "fastify", "gcp", "gen_ai", "go", "graphql", "grpc", "heroku", "host", "http", "hw", "internal", "ios", "istio",
    "jvm", "k8s", "kestrel", "koa", "linux", "log", "mainframe", "messaging", "nestjs", "net", "network", "nfs",
    "nodejs", "oci", "onc_rpc", "openai", "openshift", "opentracing", "os", "otel", "peer", "pprof", "process",
    "profile", "rpc", "sampler", "security_rule", "server", "service", "signalr", "system", "telemetry", "thread",
    "tls", "undici", "url", "user_agent", "v8js", "vcs", "webengine", "zos",
})  # fmt: skip
# Names that semantic conventions define in namespaces which applications use, too.
_CONVENTIONAL_NAMES: Final = frozenset({
    "app.build_id", "app.crash.id", "app.installation.id", "app.jank.frame_count", "app.jank.period",
    "app.jank.threshold", "app.screen.coordinate.x", "app.screen.coordinate.y", "app.screen.id", "app.screen.name",
    "app.widget.id", "app.widget.name", "destination.address", "destination.port", "device.id", "device.manufacturer",
    "device.model.identifier", "device.model.name", "enduser.id", "enduser.pseudo.id", "enduser.role", "enduser.scope",
    "event.name", "feature_flag.context.id", "feature_flag.key", "feature_flag.provider.name",
    "feature_flag.provider_name", "feature_flag.result.reason", "feature_flag.result.value",
    "feature_flag.result.variant", "feature_flag.set.id", "feature_flag.variant", "feature_flag.version",
    "file.directory", "file.extension", "file.name", "file.path", "file.size", "geo.continent.code",
    "geo.country.iso_code", "geo.locality.name", "geo.location.lat", "geo.location.lon", "geo.postal_code",
    "geo.region.iso_code", "session.id", "session.previous_id", "source.address", "source.port", "test.case.name",
    "test.case.result.status", "test.suite.name", "test.suite.run.status", "user.email", "user.full_name", "user.hash",
    "user.id", "user.name", "user.roles",
    # without a namespace, set by instrumentation
    "component", "guid:x-client-trace-id", "guid:x-request-id", "kafka_deliveryAttempt", "node_id",
    "previous-rpc-attempts", "request_size", "response_flags", "response_size", "retry.count", "retry_attempts",
    "span.kind", "upstream_address", "upstream_cluster", "upstream_cluster.name", "zone",
})  # fmt: skip
# The last words of the names of attributes that tell how a request went, not what was asked for: counters,
# measurements (Rust's `busy_ns`, Ecto's `query_time_microseconds`) and outcomes (Micrometer's `outcome`).
_INCIDENTAL_WORDS: Final = frozenset({
    "attempt", "attempts", "try", "retry", "retries", "count",
    "ns", "us", "ms", "nanos", "micros", "millis", "nanoseconds", "microseconds", "milliseconds", "seconds",
    "duration", "elapsed", "latency", "time", "timestamp", "at",
    "bytes", "length", "size",
    "error", "exception", "failed", "hit", "message", "miss", "outcome", "reason", "result", "status", "success",
})  # fmt: skip
# identifiers that a server makes for each response
_RESPONSE_IDS: Final = frozenset({"x-amz-request-id", "x-amzn-requestid", "x-ms-request-id", "x-ms-activity-id"})
_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
_CAMEL_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@cache
def is_application_attribute(name: str) -> bool:
    """Return whether the name of an attribute is neither conventional nor one of a known instrumentation."""
    namespace = name.partition(".")[0]
    is_instrumentation = namespace in _INSTRUMENTATION_NAMESPACES and namespace != name
    return not is_instrumentation and name not in _CONVENTIONAL_NAMES


@cache
def split_words(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case: `param.driverID` has the words param, driver and id."""
    return tuple(word.lower() for part in _CAMEL_HUMP.split(name) for word in _WORD.findall(part))


def may_identify_subject(name: str) -> bool:
    """Return whether an application sets the attribute to say what was asked for, by the last word of its name."""
    words = split_words(name)
    is_incidental = name.lower() in _RESPONSE_IDS or (bool(words) and words[-1] in _INCIDENTAL_WORDS)
    return is_application_attribute(name) and bool(words) and not is_incidental
