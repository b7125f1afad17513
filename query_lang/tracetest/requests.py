"""Triggers as requests."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from spanproof.query_lang.check_requests import ADDRESS, GRPC_METHOD, METHODS
from spanproof.query_lang.tracetest.constructs import NO_EQUIVALENT, malformed, refuse
from spanproof.query_lang.tracetest.definition import Definition
from spanproof.query_lang.tracetest.expressions import read_interpolated
from spanproof.query_lang.tracetest.writing import Names, write_filled
from spanproof.query_lang.writing import INDENT, Json, Written, read_json, write_json

OF_HTTP: Final = ("url", "method", "headers", "body", "auth", "sslVerification")
OF_GRPC: Final = ("protobufFile", "address", "service", "method", "request", "metadata", "auth")
OF_KAFKA: Final = (
    "brokerUrls", "topic", "headers", "authentication", "authetication", "messageKey", "messageValue",
    "sslVerification",
)  # fmt: skip
OF_GRAPHQL: Final = ("url", "headers", "body", "auth", "sslVerification", "schema")
FIELDS: Final = {"http": "httpRequest", "grpc": "grpc", "kafka": "kafka", "graphql": "graphql", "traceid": "traceid"}
Fields = dict[str, Definition]


def write_request(trigger: Definition, names: Names) -> tuple[str, list[str]]:
    """Return the type of a trigger, and the lines of the `when` that sends the same. Raises Refused."""
    fields = trigger.fields("type", *FIELDS.values(), "playwrightEngine")  # of other types' none is looked at
    if "type" not in fields:
        raise malformed("a trigger has a `type`", trigger.at)
    type_ = fields["type"].text()
    if type_ not in FIELDS:
        if type_ in NO_EQUIVALENT:
            raise refuse(type_, fields["type"].at)
        raise malformed(f"`{type_}` is no type of trigger", fields["type"].at)
    if FIELDS[type_] not in fields:
        raise malformed(f"a trigger of type `{type_}` has a `{FIELDS[type_]}`", trigger.at)
    write: dict[str, Callable[[Definition, Names], list[str]]] = {
        "http": _write_http,
        "grpc": _write_grpc,
        "kafka": _write_kafka,
        "graphql": _write_graphql,
        "traceid": _write_trace,
    }
    return type_, write[type_](fields[FIELDS[type_]], names)


def _write_http(definition: Definition, names: Names) -> list[str]:
    fields = definition.fields(*OF_HTTP)
    method = fields["method"].text().upper() if "method" in fields else "GET"
    if method not in METHODS:
        raise refuse("HTTP method", fields["method"].at, method)
    _refuse_unverified(fields)
    headers = _read_headers(fields, "headers", names)
    return _lay_out(
        f"when {method} {_fill(_required(fields, 'url', definition), names)}",
        [*_body(fields.get("body"), headers, names), *_authenticate(fields.get("auth"), names)],
    )


def _write_graphql(definition: Definition, names: Names) -> list[str]:
    fields = definition.fields(*OF_GRAPHQL)
    _refuse_unverified(fields)
    body = _required(fields, "body", definition).fields("query", "variables", "operationName")
    message: dict[str | Written, Json] = {}
    for name, value in body.items():
        pairs = value.fields().items() if name == "variables" else ()
        filled: Json = {key: Written(_fill(each, names)) for key, each in pairs}
        message[name] = filled if name == "variables" else Written(_fill(value, names))
    headers = [(name, value) for name, value in _read_headers(fields, "headers", names) if not _is_json(name, value)]
    return _lay_out(
        f"when POST {_fill(_required(fields, 'url', definition), names)}",
        [*_write_headers(headers), f"json {write_json(message)}", *_authenticate(fields.get("auth"), names)],
    )


def _write_grpc(definition: Definition, names: Names) -> list[str]:
    fields = definition.fields(*OF_GRPC)
    if "auth" in fields:
        raise refuse("gRPC auth", fields["auth"].at)
    address = _fill(_required(fields, "address", definition), names)
    method = _fill(_required(fields, "method", definition), names)
    if "service" in fields and "." not in method:
        method = f"{_fill(fields['service'], names)[:-1]}/{method[1:]}"
    elif "/" not in method:
        method = "/".join(method.rsplit(".", 1))
    for written, name, pattern in ((address, "address", ADDRESS), (method, "method", GRPC_METHOD)):
        if "{" not in written and not pattern.fullmatch(written[1:-1]):
            raise malformed(f"{written} is no {name} of gRPC", fields[name].at)
    options = []
    if "protobufFile" in fields and (source := fields["protobufFile"].text()):
        shown = source if "\n" not in source else "a .proto file"
        options += [
            f"# What methods take is asked of the server, not read from {shown}: without reflection, make",
            '# descriptors of it with protoc, and name them here: descriptors "…"',
        ]
    options += _write_headers(_read_headers(fields, "metadata", names))
    if "request" in fields and (message := fields["request"].text().strip()):
        options.append(f"json {write_json(_read_json(message, fields['request'], names))}")
    return _lay_out(f"when grpc {address} {method}", options)


def _write_kafka(definition: Definition, names: Names) -> list[str]:
    fields = definition.fields(*OF_KAFKA)
    _refuse_unverified(fields)
    for name in ("authentication", "authetication"):
        if name in fields:
            raise refuse("kafka authentication", fields[name].at, name)
    brokers = _required(fields, "brokerUrls", definition).items()
    options = [f'broker "{",".join(_fill(each, names)[1:-1] for each in brokers)}"']
    options += _body(fields.get("messageValue"), _read_headers(fields, "headers", names), names)
    if "messageKey" in fields:
        options.append(f"key {_fill(fields['messageKey'], names)}")
    return _lay_out(f"when publish kafka {_fill(_required(fields, 'topic', definition), names)}", options)


def _write_trace(definition: Definition, names: Names) -> list[str]:
    return [f"when trace {_fill(_required(definition.fields('id'), 'id', definition), names)}"]


# ## Parts of requests


def _required(fields: Fields, name: str, whole: Definition) -> Definition:
    if name not in fields:
        raise malformed(f"`{name}` is missing here", whole.at)
    return fields[name]


def _fill(value: Definition, names: Names) -> str:
    """Return a text with its variables put in."""
    return write_filled(read_interpolated(value.text(), value.part), names)


def _refuse_unverified(fields: Fields) -> None:
    if "sslVerification" in fields and not fields["sslVerification"].is_true():
        raise refuse("sslVerification: false", fields["sslVerification"].at)


def _read_headers(fields: Fields, name: str, names: Names) -> list[tuple[str, str]]:
    """Return the headers as written: names and values."""
    found = []
    for each in fields[name].items() if name in fields else ():
        pair = each.fields("key", "value")
        key = _required(pair, "key", each)
        if key.text().lower() == "traceparent":
            raise refuse("traceparent header", key.at)
        found.append((_fill(key, names), _fill(pair["value"], names) if "value" in pair else '""'))
    return found


def _write_headers(headers: Iterable[tuple[str, str]]) -> list[str]:
    return [f"header {name}: {value}" for name, value in headers]


def _is_json(name: str, value: str) -> bool:
    """Tell whether a header only says what `json` says by itself."""
    return name.lower() == '"content-type"' and value.lower() == '"application/json"'


def _body(body: Definition | None, headers: list[tuple[str, str]], names: Names) -> list[str]:
    """Return the headers with the body: as JSON where a header says that it is, else as it stands."""
    if body is None or not body.text():
        return _write_headers(headers)
    if any(
        name.lower() == '"content-type"' and re.match(r'"application/(.+\+)?json', value) for name, value in headers
    ):
        message = _parse_json(body.text())
        if isinstance(message, dict | list):
            kept = [(name, value) for name, value in headers if not _is_json(name, value)]
            return [*_write_headers(kept), f"json {write_json(_put_names_in(message, body, names))}"]
    return [*_write_headers(headers), f"body {_fill(body, names)}"]


def _read_json(text: str, definition: Definition, names: Names) -> Json:
    """Read JSON with variables in its texts. Raises Refused."""
    message = _parse_json(text)
    if message is None:
        if "${" in re.sub(r'"(?:\\.|[^"\\])*"', "", text):
            raise refuse("variable outside of a text in JSON", definition.at, "${…}")
        raise malformed("this is not JSON", definition.at)
    return _put_names_in(message, definition, names)


def _parse_json(text: str) -> Any:
    """Return the value of a JSON text that a proof can hold; else None."""
    try:
        return read_json(text)
    except ValueError:
        return None


def _put_names_in(value: Any, definition: Definition, names: Names) -> Json:
    if isinstance(value, dict):
        return {
            Written(_text(key, definition, names)): _put_names_in(each, definition, names)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_put_names_in(each, definition, names) for each in value]
    return Written(_text(value, definition, names)) if isinstance(value, str) else value


def _text(text: str, definition: Definition, names: Names) -> str:
    return write_filled(read_interpolated(text, lambda start, end: definition.at), names)


def _authenticate(auth: Definition | None, names: Names) -> list[str]:
    """Return what shows who asks."""
    if auth is None:
        return []
    fields = auth.fields("type", "apiKey", "basic", "bearer")
    type_ = _required(fields, "type", auth).text()
    if type_ not in ("apiKey", "basic", "bearer"):
        raise malformed(f"`{type_}` is no type of authentication", fields["type"].at)
    told = _required(fields, type_, auth)
    match type_:
        case "bearer":
            return [f'header "authorization": {_fill(_required(told.fields("token"), "token", told), names)}']
        case "apiKey":
            parts = told.fields("key", "value", "in")
            key, value = (_fill(_required(parts, name, told), names) for name in ("key", "value"))
            where = parts["in"].text() if "in" in parts else "header"
            if where not in ("header", "query"):
                raise malformed("a key stands in the `header` or in the `query`", parts["in"].at)
            return [f"{where} {key}: {value}"]
        case _:
            parts = told.fields("username", "password")
            user, password = (_required(parts, name, told).text() for name in ("username", "password"))
            if "${" in user + password:
                raise refuse("basic auth with variables", told.at, "basic")
            code = base64.b64encode(f"{user}:{password}".encode()).decode()
            return [f'header "authorization": "Basic {code}"']


def _lay_out(head: str, options: list[str]) -> list[str]:
    if not options:
        return [head]
    lines = [INDENT + line for option in options for line in option.split("\n")]
    return [f"{head} {{", *lines, "}"]
