"""Assertions on selected spans, and on the response, as claims."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from spanproof.query_lang.tracetest import expressions as e
from spanproof.query_lang.tracetest.constructs import malformed, refuse
from spanproof.query_lang.tracetest.selectors import SpanSelector
from spanproof.query_lang.tracetest.targets import FIELDS, OF_SPAN, TYPE, TYPES, WORDS, is_of_type, write_target
from spanproof.query_lang.tracetest.values import COMPARATORS, Comparer, Value, refuse_pipe
from spanproof.query_lang.tracetest.writing import Names, write_attribute
from spanproof.query_lang.writing import write_text

COUNT: Final = "tracetest.selected_spans.count"
DURATION: Final = "tracetest.span.duration"
OF_RESPONSE: Final = "tracetest.response."
FLIPPED: Final[dict[e.Comparator, e.Comparator]] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
SENT: Final = (("=", "1"), (">=", "1"), (">", "0"), ("!=", "0"))
_STEP: Final = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")


def write_claims(
    selectors: tuple[SpanSelector, ...], statements: list[e.Statement], names: Names, trigger: str
) -> list[str]:
    """Return the claims that assertions on selected spans make; `trigger` is its type. Raises Refused."""
    for selector in selectors:
        if not selector.takes_others and not selector.takes_trigger:
            raise refuse("trigger with other filters", selector.at)
    with_trigger = any(each.takes_trigger for each in selectors)
    others = [each for each in selectors if each.takes_others]
    claims, conditions = [], []
    for statement in map(_put_attribute_first, statements):
        attributes = {each.name for each in _attributes(statement)}
        if not attributes:
            raise refuse("assertion without an attribute", statement.at)
        if COUNT in attributes:
            claims += _write_count(selectors, statement, names)
            continue
        if others and with_trigger and attributes != {DURATION}:
            raise refuse("attribute of every span", statement.at, f"attr:{min(attributes - {DURATION})}")
        if with_trigger:
            claims.append(write_of_response(statement, names, trigger))
        if others:
            conditions.append(_write_condition(statement, names))
    if conditions:
        claims.insert(0, f"every {write_target(others, names)} has {' and '.join(conditions)}")
    return claims


def _put_attribute_first(statement: e.Statement) -> e.Statement:
    """Return the statement with what it is about on its left."""
    if any(True for _ in _of(statement.left)) or statement.comparator not in FLIPPED:
        return statement
    return e.Statement(statement.right, FLIPPED[statement.comparator], statement.left, statement.at)


def _attributes(statement: e.Statement) -> Iterator[e.Attribute]:
    yield from _of(statement.left)
    yield from _of(statement.right)


def _of(expression: e.Expression) -> Iterator[e.Attribute]:
    """Yield the attributes that an expression speaks of."""
    for term in expression.terms:
        if isinstance(term, e.Attribute):
            yield term
        elif isinstance(term, e.Array):
            yield from (each for each in term.items if isinstance(each, e.Attribute))
        elif isinstance(term, e.Text):
            for part in term.parts:
                if isinstance(part, e.Expression):
                    yield from _of(part)


# ## Spans


def _write_count(selectors: tuple[SpanSelector, ...], statement: e.Statement, names: Names) -> list[str]:
    """How many spans are selected: by each selector of several, and the trigger's own, which a proof has not.

    That this one is there says that the request was sent, without which a proof is an error.
    """
    if len(list(_attributes(statement))) > 1 or statement.comparator not in COMPARATORS:
        raise malformed(f"`{COUNT}` is compared with a number", statement.at)
    counts = [f"count({write_target([each], names)})" for each in selectors if each.takes_others]
    counts += ["1"] * sum(each.takes_trigger for each in selectors)
    if counts == ["1"]:
        right = statement.right.first
        if (statement.comparator, getattr(right, "text", "")) in SENT and not statement.right.rest:
            return []
        raise refuse("count of the trigger", statement.at, COUNT)

    def resolve(attribute: e.Attribute, pipes: tuple[e.Pipe, ...]) -> Value:
        if pipes:
            raise refuse_pipe(pipes[0])
        return Value(" + ".join(counts), "number")

    return [Comparer(names, resolve).compare(statement)]


def _write_condition(statement: e.Statement, names: Names) -> str:
    """Return the condition that a span must satisfy."""
    left = statement.left
    if isinstance(left.first, e.Attribute) and left.first.name == TYPE:
        return _write_type(statement)
    return Comparer(names, _of_span).compare(statement)


def _of_span(attribute: e.Attribute, pipes: tuple[e.Pipe, ...]) -> Value:
    """Return an attribute or field of a span."""
    name = attribute.name
    if name.startswith(OF_RESPONSE):
        raise refuse("tracetest.response of a span", attribute.at, f"attr:{name}")
    if name in ("tracetest.span.start_time", "tracetest.span.end_time", "span.events"):
        raise refuse(name, attribute.at, f"attr:{name}")
    if name == TYPE:
        raise refuse("tracetest.span.type compared", attribute.at, f"attr:{name}")
    field = FIELDS.get(name) if name != "kind" else None
    if field is None and name.startswith(OF_SPAN):
        raise malformed(f"no span has `{name}`", attribute.at)
    written = field or write_attribute(name)
    if pipes:
        if field in ("duration", *WORDS) or len(pipes) > 1 or pipes[0].name != "length":
            raise refuse_pipe(pipes[0])
        return Value(f"len({written})", "number")
    if field is None:
        return Value(written, "any")
    return Value(written, field if field in ("duration", *WORDS) else "text")  # type: ignore[arg-type]  # one of these


def _write_type(statement: e.Statement) -> str:
    right, comparator = statement.right.first, statement.comparator
    plain = right.plain if isinstance(right, e.Text) else None
    if comparator not in ("=", "!=") or plain not in (*TYPES, "general") or statement.left.pipes:
        raise refuse("tracetest.span.type compared", statement.at, f"attr:{TYPE}")
    condition = is_of_type(str(plain), ())
    if comparator == "=":
        return condition
    return condition.removeprefix("not ") if plain == "general" else f"not {condition}"


# ## The response


def write_of_response(statement: e.Statement, names: Names, trigger: str) -> str:
    """Return the claim that an assertion on the trigger's span makes. Raises Refused."""
    left, right = statement.left, statement.right.first
    whole = isinstance(left.first, e.Attribute) and left.first.name == f"{OF_RESPONSE}body" and not left.pipes
    if whole and trigger == "grpc" and statement.comparator in ("=", "!=") and isinstance(right, e.Text):
        # Tracetest lays gRPC's messages out in its own way, so that what is meant is the message
        operator = COMPARATORS[statement.comparator]
        try:
            message = json.loads(right.plain or "")
        except ValueError:
            return f"response.body {operator} {write_text(right.plain or '')}"
        if message == {}:
            return f"len(response.json) {'==' if operator == '==' else '>'} 0"
        return f"response.json {operator} json({write_text(json.dumps(message, ensure_ascii=False))})"
    return Comparer(names, of_response).compare(statement)


def of_response(attribute: e.Attribute, pipes: tuple[e.Pipe, ...]) -> Value:
    """Return a part of the response. Raises Refused."""
    name = attribute.name
    if name == f"{OF_RESPONSE}body" and pipes and pipes[0].name == "json_path":
        return _write_part(pipes)
    if pipes:
        if name == f"{OF_RESPONSE}body" and len(pipes) == 1 and pipes[0].name == "length":
            return Value("len(response.body)", "number")
        raise refuse_pipe(pipes[0])
    if name == f"{OF_RESPONSE}body":
        return Value("response.body", "text")
    if name == f"{OF_RESPONSE}status":
        return Value("response.status", "number")
    if name == DURATION:
        return Value("response.duration", "duration")
    raise refuse("attribute of the trigger", attribute.at, f"attr:{name}")


def _write_part(pipes: tuple[e.Pipe, ...]) -> Value:
    """Return what a ``json_path`` leads to, as far as that is one value."""
    path, *more = pipes
    argument = path.arguments[0] if len(path.arguments) == 1 else None
    if not isinstance(argument, e.Text) or argument.plain is None:
        raise malformed("`json_path` takes one text", path.at)
    written = argument.plain.strip()
    counted = len(more) == 1 and more[0].name == "length"
    if counted:  # of all items of a list
        written, more = written.removesuffix("[*]"), []
    elif len(more) == 1 and more[0].name == "get_index" and written.endswith("[*]"):
        (place,) = more[0].arguments
        if isinstance(place, e.Number) and place.text.isdigit():
            written, more = f"{written.removesuffix('[*]')}[{place.text}]", []
    if more:
        raise refuse("json_path beside other filters", more[0].at, more[0].name)
    text = _write_keys(written.removeprefix("$"))
    if text is None:
        shown = f"json_path '{argument.plain}'"
        raise refuse("json_path with more than names and places", argument.at, shown)
    return Value(f"len(response.json{text})", "number") if counted else Value(f"response.json{text}", "json")


def _write_keys(path: str) -> str | None:
    """Return the keys of a path, or None where it does not lead to one value."""
    keys, end = "", 0
    while end < len(path):
        step = _STEP.match(path, end)
        if step is None:
            return None
        name, place, *quoted = step.groups()
        if place is not None:
            keys += f"[{place}]"
        elif name is not None and re.fullmatch(r"[A-Za-z_]\w*(?:-\w+)*", name):
            keys += f".{name}"
        else:
            keys += f"[{write_text(name or quoted[0] or quoted[1] or '')}]"
        end = step.end()
    return keys
