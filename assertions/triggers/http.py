"""Sends HTTP requests that start a trace of their own, and keeps what came back."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Final

import httpx

from spanproof.assertions.triggers.context import Answer, TraceContext, TriggerFailed, first_line
from spanproof.assertions.triggers.targets import Targets
from spanproof.query_lang import syntax as s
from spanproof.query_lang import vocabulary as v
from spanproof.query_lang.constants import Bindings, Constant, JsonValue, NoValue, as_text, evaluate, fill

TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class HttpResponse(Answer):
    """What a request was answered with."""

    request: httpx.Request
    headers: httpx.Headers

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the response, or None where it has no such part."""
        if part == "headers":
            value = self.headers.get(str(keys[0]))
            return None if value is None else Constant(value, "text")
        return Answer.read(self, part, keys)


def send(
    when: s.When, bindings: Bindings, context: TraceContext, run_id: str, targets: Targets | None = None
) -> HttpResponse:
    """Send the request of a ``when``, where `targets` are given, to one of these alone. Raises TriggerFailed.

    Redirects are not followed: where they lead is part of the response.
    """
    request, timeout = _build(when, bindings, context, run_id)
    sent = request if targets is None else targets.pin(request)
    started_ns = time.perf_counter_ns()
    try:
        with httpx.Client(timeout=timeout, trust_env=False) as client:
            response = client.send(sent)
    except httpx.TimeoutException:
        raise TriggerFailed(f"{request.method} {request.url} was not answered within {timeout:g}s") from None
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise TriggerFailed(f"{request.method} {request.url} failed: {first_line(reason)}") from None
    return HttpResponse(
        response.status_code, response.text, time.perf_counter_ns() - started_ns, request, response.headers
    )


def _build(when: s.When, bindings: Bindings, context: TraceContext, run_id: str) -> tuple[httpx.Request, float]:
    target = when.targets[0]
    url = fill(target, bindings) if isinstance(target, s.Text) else target.text
    headers = {"traceparent": context.traceparent, "baggage": f"spanproof.run_id={run_id}"}
    query: list[tuple[str, str | int | float | bool | None]] = []
    body: str | None = None
    form: dict[str, str] | None = None
    has_json, json_body, timeout = False, None, TIMEOUT_S
    for option in when.options:
        match option.kind:
            case "header":
                key, value = _key(option, bindings).lower(), _text(option, bindings)
                headers[key] = f"{headers[key]},{value}" if key == "baggage" else value
            case "query":
                query.append((_key(option, bindings), _text(option, bindings)))
            case "json":
                has_json, json_body = True, build_json(option.value, bindings)
            case "form":
                pairs = build_json(option.value, bindings)
                form = {key: as_text(Constant(value, "any")) for key, value in dict(pairs).items()}  # type: ignore[arg-type]
            case "body":
                body = _text(option, bindings)
            case "timeout":
                limit = evaluate(option.value, bindings)  # type: ignore[arg-type]  # checked: a duration
                timeout = float(limit.value) / 1e9 if limit else TIMEOUT_S  # type: ignore[arg-type]
    try:
        if has_json:
            headers.setdefault("content-type", "application/json")
            body = json.dumps(json_body)
        request = httpx.Request(
            when.kind,
            httpx.URL(url).copy_merge_params(query),
            headers=headers,
            content=body,
            data=form if body is None else None,
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError, TypeError) as error:
        raise TriggerFailed(f"`{url}` cannot be requested: {first_line(str(error))}") from None
    if request.url.scheme not in ("http", "https") or not request.url.host:
        raise TriggerFailed(f"`{url}` is not an address such as http://127.0.0.1:8080/path")
    return request, timeout


def build_json(node: object, bindings: Bindings) -> JsonValue:
    """Return the JSON value of a body, its names put in."""
    match node:
        case s.JsonObject():
            return {fill(key, bindings): build_json(value, bindings) for key, value in node.pairs}
        case s.JsonArray():
            return [build_json(item, bindings) for item in node.items]
        case s.Text():
            return fill(node, bindings)
        case s.Name() if node.text in v.CONSTANTS:
            return v.CONSTANTS[node.text]
        case s.Name() | s.Number() | s.Negative():
            found = evaluate(node, bindings)
            if found is None:
                raise NoValue(f"`{node.text}` has no value" if isinstance(node, s.Name) else "a value is missing")
            value = found.value
            if isinstance(value, str | bool | list | dict) or value is None:
                return value
            return int(value) if value == int(value) else float(value)
        case _:
            raise AssertionError(f"{type(node).__name__} is no JSON")


def _key(option: s.Option, bindings: Bindings) -> str:
    return fill(option.key, bindings) if option.key is not None else ""


def _text(option: s.Option, bindings: Bindings) -> str:
    found = evaluate(option.value, bindings)  # type: ignore[arg-type]  # an expression, not JSON
    if found is None:
        raise NoValue(f"`{option.kind}` has no value")
    return as_text(found)
