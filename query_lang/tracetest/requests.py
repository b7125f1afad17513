"""Conversion of triggers to requests."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from spanproof.query_lang.check.requests import GRPC_METHOD_PATTERN, HOST_PORT_PATTERN, HTTP_METHODS
from spanproof.query_lang.syntax.printer import INDENT, Json, RawText, format_json, parse_json
from spanproof.query_lang.tracetest.definition import YamlPart
from spanproof.query_lang.tracetest.expressions import read_interpolated
from spanproof.query_lang.tracetest.printer import ProofNames, write_interpolated
from spanproof.query_lang.tracetest.unsupported import NO_EQUIVALENT, make_malformed_error, make_no_equivalent_error

HTTP_FIELDS: Final = ("url", "method", "headers", "body", "auth", "sslVerification")
GRPC_FIELDS: Final = ("protobufFile", "address", "service", "method", "request", "metadata", "auth")
KAFKA_FIELDS: Final = (
    "brokerUrls", "topic", "headers", "authentication", "authetication", "messageKey", "messageValue",
    "sslVerification",
)  # fmt: skip
GRAPHQL_FIELDS: Final = ("url", "headers", "body", "auth", "sslVerification", "schema")
FIELD_BY_TRIGGER_TYPE: Final = {
    "http": "httpRequest",
    "grpc": "grpc",
    "kafka": "kafka",
    "graphql": "graphql",
    "traceid": "traceid",
}
FieldsByName = dict[str, YamlPart]


def write_request(trigger: YamlPart, names: ProofNames) -> tuple[str, list[str]]:
    """Return the type of a trigger, and the lines of the equivalent `when`. Raises DiagnosticError."""
    fields = trigger.read_fields(
        "type", *FIELD_BY_TRIGGER_TYPE.values(), "playwrightEngine"
    )  # the fields of other types are not read
    if "type" not in fields:
        raise make_malformed_error("a trigger has a `type`", trigger.at)
    type_ = fields["type"].read_text()
    if type_ not in FIELD_BY_TRIGGER_TYPE:
        if type_ in NO_EQUIVALENT:
            raise make_no_equivalent_error(type_, fields["type"].at)
        raise make_malformed_error(f"`{type_}` is not a type of trigger", fields["type"].at)
    if FIELD_BY_TRIGGER_TYPE[type_] not in fields:
        raise make_malformed_error(f"a trigger of type `{type_}` has a `{FIELD_BY_TRIGGER_TYPE[type_]}`", trigger.at)
    write: dict[str, Callable[[YamlPart, ProofNames], list[str]]] = {
        "http": _write_http,
        "grpc": _write_grpc,
        "kafka": _write_kafka,
        "graphql": _write_graphql,
        "traceid": _write_trace,
    }
    return type_, write[type_](fields[FIELD_BY_TRIGGER_TYPE[type_]], names)


def _write_http(definition: YamlPart, names: ProofNames) -> list[str]:
    fields = definition.read_fields(*HTTP_FIELDS)
    method = fields["method"].read_text().upper() if "method" in fields else "GET"
    if method not in HTTP_METHODS:
        raise make_no_equivalent_error("HTTP method", fields["method"].at, method)
    _reject_unverified_tls(fields)
    headers = _read_headers(fields, "headers", names)
    return _format_block(
        f"when {method} {_write_string(_require_field(fields, 'url', definition), names)}",
        [*_write_body(fields.get("body"), headers, names), *_write_authentication(fields.get("auth"), names)],
    )


def _write_graphql(definition: YamlPart, names: ProofNames) -> list[str]:
    fields = definition.read_fields(*GRAPHQL_FIELDS)
    _reject_unverified_tls(fields)
    body = _require_field(fields, "body", definition).read_fields("query", "variables", "operationName")
    message: dict[str | RawText, Json] = {}
    for name, value in body.items():
        pairs = value.read_fields().items() if name == "variables" else ()
        variables: Json = {key: RawText(_write_string(variable, names)) for key, variable in pairs}
        message[name] = variables if name == "variables" else RawText(_write_string(value, names))
    headers = [
        (name, value)
        for name, value in _read_headers(fields, "headers", names)
        if not _is_json_content_type(name, value)
    ]
    return _format_block(
        f"when POST {_write_string(_require_field(fields, 'url', definition), names)}",
        [*_write_headers(headers), f"json {format_json(message)}", *_write_authentication(fields.get("auth"), names)],
    )


def _write_grpc(definition: YamlPart, names: ProofNames) -> list[str]:
    fields = definition.read_fields(*GRPC_FIELDS)
    if "auth" in fields:
        raise make_no_equivalent_error("gRPC auth", fields["auth"].at)
    address = _write_string(_require_field(fields, "address", definition), names)
    method = _write_string(_require_field(fields, "method", definition), names)
    if "service" in fields and "." not in method:
        method = f"{_write_string(fields['service'], names)[:-1]}/{method[1:]}"
    elif "/" not in method:
        method = "/".join(method.rsplit(".", 1))
    for text, name, pattern in ((address, "address", HOST_PORT_PATTERN), (method, "method", GRPC_METHOD_PATTERN)):
        if "{" not in text and not pattern.fullmatch(text[1:-1]):
            raise make_malformed_error(f"{text} is not a valid {name} of gRPC", fields[name].at)
    options = []
    if "protobufFile" in fields and (source := fields["protobufFile"].read_text()):
        source_name = source if "\n" not in source else "a .proto file"
        options += [
            f"# Message types come from server reflection, not from {source_name}. Without it, make",
            '# descriptors of it with protoc, and name them here: descriptors "…"',
        ]
    options += _write_headers(_read_headers(fields, "metadata", names))
    if "request" in fields and (message := fields["request"].read_text().strip()):
        options.append(f"json {format_json(_read_json(message, fields['request'], names))}")
    return _format_block(f"when grpc {address} {method}", options)


def _write_kafka(definition: YamlPart, names: ProofNames) -> list[str]:
    fields = definition.read_fields(*KAFKA_FIELDS)
    _reject_unverified_tls(fields)
    for name in ("authentication", "authetication"):
        if name in fields:
            raise make_no_equivalent_error("kafka authentication", fields[name].at, name)
    brokers = _require_field(fields, "brokerUrls", definition).read_items()
    options = [f'broker "{",".join(_write_string(each, names)[1:-1] for each in brokers)}"']
    options += _write_body(fields.get("messageValue"), _read_headers(fields, "headers", names), names)
    if "messageKey" in fields:
        options.append(f"key {_write_string(fields['messageKey'], names)}")
    return _format_block(
        f"when publish kafka {_write_string(_require_field(fields, 'topic', definition), names)}", options
    )


def _write_trace(definition: YamlPart, names: ProofNames) -> list[str]:
    return [f"when trace {_write_string(_require_field(definition.read_fields('id'), 'id', definition), names)}"]


# ## Parts of requests


def _require_field(fields: FieldsByName, name: str, owner: YamlPart) -> YamlPart:
    if name not in fields:
        raise make_malformed_error(f"`{name}` is missing here", owner.at)
    return fields[name]


def _write_string(value: YamlPart, names: ProofNames) -> str:
    """Return a text as a string literal with its variables."""
    return write_interpolated(read_interpolated(value.read_text(), value.locate_part), names)


def _reject_unverified_tls(fields: FieldsByName) -> None:
    if "sslVerification" in fields and not fields["sslVerification"].is_true():
        raise make_no_equivalent_error("sslVerification: false", fields["sslVerification"].at)


def _read_headers(fields: FieldsByName, name: str, names: ProofNames) -> list[tuple[str, str]]:
    """Return the headers as string literals: names and values."""
    headers = []
    for header in fields[name].read_items() if name in fields else ():
        pair = header.read_fields("key", "value")
        key = _require_field(pair, "key", header)
        if key.read_text().lower() == "traceparent":
            raise make_no_equivalent_error("traceparent header", key.at)
        headers.append((_write_string(key, names), _write_string(pair["value"], names) if "value" in pair else '""'))
    return headers


def _write_headers(headers: Iterable[tuple[str, str]]) -> list[str]:
    return [f"header {name}: {value}" for name, value in headers]


def _is_json_content_type(name: str, value: str) -> bool:
    """Return whether a header is the one that `json` sets itself."""
    return name.lower() == '"content-type"' and value.lower() == '"application/json"'


def _write_body(body: YamlPart | None, headers: list[tuple[str, str]], names: ProofNames) -> list[str]:
    """Return the headers and the body. The body is `json` if a header says so, otherwise text."""
    if body is None or not body.read_text():
        return _write_headers(headers)
    if any(
        name.lower() == '"content-type"' and re.match(r'"application/(.+\+)?json', value) for name, value in headers
    ):
        message = _parse_json(body.read_text())
        if isinstance(message, dict | list):
            other_headers = [(name, value) for name, value in headers if not _is_json_content_type(name, value)]
            return [*_write_headers(other_headers), f"json {format_json(_insert_variables(message, body, names))}"]
    return [*_write_headers(headers), f"body {_write_string(body, names)}"]


def _read_json(text: str, definition: YamlPart, names: ProofNames) -> Json:
    """Read JSON whose strings can contain variables. Raises DiagnosticError."""
    message = _parse_json(text)
    if message is None:
        if "${" in re.sub(r'"(?:\\.|[^"\\])*"', "", text):
            raise make_no_equivalent_error("variable outside of a text in JSON", definition.at, "${…}")
        raise make_malformed_error("this is not JSON", definition.at)
    return _insert_variables(message, definition, names)


def _parse_json(text: str) -> Any:
    """Return the value of a JSON text, or None if a proof cannot contain it."""
    try:
        return parse_json(text)
    except ValueError:
        return None


def _insert_variables(value: Any, definition: YamlPart, names: ProofNames) -> Json:
    if isinstance(value, dict):
        return {
            RawText(_write_json_string(key, definition, names)): _insert_variables(item, definition, names)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_insert_variables(item, definition, names) for item in value]
    return RawText(_write_json_string(value, definition, names)) if isinstance(value, str) else value


def _write_json_string(text: str, definition: YamlPart, names: ProofNames) -> str:
    return write_interpolated(read_interpolated(text, lambda start, end: definition.at), names)


def _write_authentication(auth: YamlPart | None, names: ProofNames) -> list[str]:
    """Return the header or query parameter of an authentication."""
    if auth is None:
        return []
    fields = auth.read_fields("type", "apiKey", "basic", "bearer")
    type_ = _require_field(fields, "type", auth).read_text()
    if type_ not in ("apiKey", "basic", "bearer"):
        raise make_malformed_error(f"`{type_}` is not a type of authentication", fields["type"].at)
    credentials = _require_field(fields, type_, auth)
    match type_:
        case "bearer":
            token = _require_field(credentials.read_fields("token"), "token", credentials)
            return [f'header "authorization": {_write_string(token, names)}']
        case "apiKey":
            parts = credentials.read_fields("key", "value", "in")
            key, value = (_write_string(_require_field(parts, name, credentials), names) for name in ("key", "value"))
            target = parts["in"].read_text() if "in" in parts else "header"
            if target not in ("header", "query"):
                raise make_malformed_error("a key is in the `header` or in the `query`", parts["in"].at)
            return [f"{target} {key}: {value}"]
        case _:
            parts = credentials.read_fields("username", "password")
            user, password = (_require_field(parts, name, credentials).read_text() for name in ("username", "password"))
            if "${" in user + password:
                raise make_no_equivalent_error("basic auth with variables", credentials.at, "basic")
            code = base64.b64encode(f"{user}:{password}".encode()).decode()
            return [f'header "authorization": "Basic {code}"']


def _format_block(head: str, options: list[str]) -> list[str]:
    if not options:
        return [head]
    lines = [INDENT + line for option in options for line in option.split("\n")]
    return [f"{head} {{", *lines, "}"]
