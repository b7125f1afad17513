"""Conversion of assertions on selected spans and on the response to claims."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from spanproof.query_lang.syntax.literals import is_name
from spanproof.query_lang.syntax.printer import format_string
from spanproof.query_lang.tracetest import expressions as e
from spanproof.query_lang.tracetest.printer import ProofNames, write_attribute
from spanproof.query_lang.tracetest.selectors import SpanSelector
from spanproof.query_lang.tracetest.targets import (
    ENUM_WORDS,
    FIELD_BY_ATTRIBUTE,
    SPAN_PREFIX,
    SPAN_TYPES,
    TYPE_ATTRIBUTE,
    write_selection,
    write_type_condition,
)
from spanproof.query_lang.tracetest.unsupported import make_malformed_error, make_no_equivalent_error
from spanproof.query_lang.tracetest.values import PROOF_OPERATORS, ComparisonWriter, WrittenValue, make_pipe_error

COUNT_ATTRIBUTE: Final = "tracetest.selected_spans.count"
DURATION_ATTRIBUTE: Final = "tracetest.span.duration"
RESPONSE_PREFIX: Final = "tracetest.response."
FLIPPED_COMPARATORS: Final[dict[e.Comparator, e.Comparator]] = {
    "<": ">",
    "<=": ">=",
    ">": "<",
    ">=": "<=",
    "=": "=",
    "!=": "!=",
}
TRIGGER_SENT_COMPARISONS: Final = (("=", "1"), (">=", "1"), (">", "0"), ("!=", "0"))
_JSON_PATH_STEP: Final = re.compile(r"\.([^\W\d][\w-]*)|\[(\d+)\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")


def write_claims(
    selectors: tuple[SpanSelector, ...], statements: list[e.TracetestAssertion], names: ProofNames, trigger: str
) -> list[str]:
    """Return the claims of assertions on selected spans. `trigger` is the trigger's type. Raises DiagnosticError."""
    for selector in selectors:
        if not selector.matches_service_spans and not selector.matches_trigger_span:
            raise make_no_equivalent_error("trigger with other filters", selector.at)
    with_trigger = any(selector.matches_trigger_span for selector in selectors)
    service_selectors = [selector for selector in selectors if selector.matches_service_spans]
    claims, conditions = [], []
    for statement in map(_put_attribute_first, statements):
        attributes = {attribute.name for attribute in _find_statement_attributes(statement)}
        if not attributes:
            raise make_no_equivalent_error("assertion without an attribute", statement.at)
        if COUNT_ATTRIBUTE in attributes:
            claims += _write_count(selectors, statement, names)
            continue
        if service_selectors and with_trigger and attributes != {DURATION_ATTRIBUTE}:
            raise make_no_equivalent_error(
                "attribute of every span", statement.at, f"attr:{min(attributes - {DURATION_ATTRIBUTE})}"
            )
        if with_trigger:
            claims.append(write_response_claim(statement, names, trigger))
        if service_selectors:
            conditions.append(_write_condition(statement, names))
    if conditions:
        claims.insert(0, f"every {write_selection(service_selectors, names)} has {' and '.join(conditions)}")
    return claims


def _put_attribute_first(statement: e.TracetestAssertion) -> e.TracetestAssertion:
    """Return the statement with its attribute on the left."""
    if (
        any(True for _ in _find_expression_attributes(statement.left))
        or statement.comparator not in FLIPPED_COMPARATORS
    ):
        return statement
    return e.TracetestAssertion(
        statement.right, FLIPPED_COMPARATORS[statement.comparator], statement.left, statement.at
    )


def _find_statement_attributes(statement: e.TracetestAssertion) -> Iterator[e.TracetestAttribute]:
    yield from _find_expression_attributes(statement.left)
    yield from _find_expression_attributes(statement.right)


def _find_expression_attributes(expression: e.TracetestExpression) -> Iterator[e.TracetestAttribute]:
    """Yield the attributes in an expression."""
    for term in expression.terms:
        if isinstance(term, e.TracetestAttribute):
            yield term
        elif isinstance(term, e.TracetestArray):
            yield from (each for each in term.items if isinstance(each, e.TracetestAttribute))
        elif isinstance(term, e.TracetestText):
            for part in term.parts:
                if isinstance(part, e.TracetestExpression):
                    yield from _find_expression_attributes(part)


# ## Spans


def _write_count(selectors: tuple[SpanSelector, ...], statement: e.TracetestAssertion, names: ProofNames) -> list[str]:
    """Return the claims about the number of selected spans.

    The counts of all selectors are added, with 1 for the trigger's span, which does not exist in a proof. If only the
    trigger's span is counted, the assertion states that the request was sent. It needs no claim, because a proof whose
    request fails is an error.
    """
    if len(list(_find_statement_attributes(statement))) > 1 or statement.comparator not in PROOF_OPERATORS:
        raise make_malformed_error(f"`{COUNT_ATTRIBUTE}` is compared with a number", statement.at)
    counts = [f"count({write_selection([each], names)})" for each in selectors if each.matches_service_spans]
    counts += ["1"] * sum(each.matches_trigger_span for each in selectors)
    if counts == ["1"]:
        right = statement.right.first
        if (statement.comparator, getattr(right, "text", "")) in TRIGGER_SENT_COMPARISONS and not statement.right.rest:
            return []
        raise make_no_equivalent_error("count of the trigger", statement.at, COUNT_ATTRIBUTE)

    def resolve(attribute: e.TracetestAttribute, pipes: tuple[e.TracetestPipe, ...]) -> WrittenValue:
        if pipes:
            raise make_pipe_error(pipes[0])
        return WrittenValue(" + ".join(counts), "number")

    return [ComparisonWriter(names, resolve).write_comparison(statement)]


def _write_condition(statement: e.TracetestAssertion, names: ProofNames) -> str:
    """Return the condition that a span must satisfy."""
    left = statement.left
    if isinstance(left.first, e.TracetestAttribute) and left.first.name == TYPE_ATTRIBUTE:
        return _write_type_comparison(statement)
    return ComparisonWriter(names, _resolve_span_attribute).write_comparison(statement)


def _resolve_span_attribute(attribute: e.TracetestAttribute, pipes: tuple[e.TracetestPipe, ...]) -> WrittenValue:
    """Return an attribute or field of a span."""
    name = attribute.name
    if name.startswith(RESPONSE_PREFIX):
        raise make_no_equivalent_error("tracetest.response of a span", attribute.at, f"attr:{name}")
    if name in ("tracetest.span.start_time", "tracetest.span.end_time", "span.events"):
        raise make_no_equivalent_error(name, attribute.at, f"attr:{name}")
    if name == TYPE_ATTRIBUTE:
        raise make_no_equivalent_error("tracetest.span.type compared", attribute.at, f"attr:{name}")
    field = FIELD_BY_ATTRIBUTE.get(name) if name != "kind" else None
    if field is None and name.startswith(SPAN_PREFIX):
        raise make_malformed_error(f"no span has `{name}`", attribute.at)
    written = field or write_attribute(name)
    if pipes:
        if field in ("duration", *ENUM_WORDS) or len(pipes) > 1 or pipes[0].name != "length":
            raise make_pipe_error(pipes[0])
        return WrittenValue(f"len({written})", "number")
    if field is None:
        return WrittenValue(written, "any")
    return WrittenValue(written, field if field in ("duration", *ENUM_WORDS) else "text")  # type: ignore[arg-type]  # one of these


def _write_type_comparison(statement: e.TracetestAssertion) -> str:
    right, comparator = statement.right.first, statement.comparator
    plain = right.plain if isinstance(right, e.TracetestText) else None
    if comparator not in ("=", "!=") or plain not in (*SPAN_TYPES, "general") or statement.left.pipes:
        raise make_no_equivalent_error("tracetest.span.type compared", statement.at, f"attr:{TYPE_ATTRIBUTE}")
    condition = write_type_condition(str(plain), ())
    if comparator == "=":
        return condition
    return condition.removeprefix("not ") if plain == "general" else f"not {condition}"


# ## The response


def write_response_claim(statement: e.TracetestAssertion, names: ProofNames, trigger: str) -> str:
    """Return the claim of an assertion on the trigger's span. Raises DiagnosticError."""
    left, right = statement.left, statement.right.first
    is_body = (
        isinstance(left.first, e.TracetestAttribute) and left.first.name == f"{RESPONSE_PREFIX}body" and not left.pipes
    )
    if is_body and trigger == "grpc" and statement.comparator in ("=", "!=") and isinstance(right, e.TracetestText):
        # Tracetest formats gRPC messages in its own way, so compare the parsed messages
        operator = PROOF_OPERATORS[statement.comparator]
        try:
            message = json.loads(right.plain or "")
        except ValueError:
            return f"response.body {operator} {format_string(right.plain or '')}"
        if message == {}:
            return f"len(response.json) {'==' if operator == '==' else '>'} 0"
        return f"response.json {operator} json({format_string(json.dumps(message, ensure_ascii=False))})"
    return ComparisonWriter(names, resolve_response_attribute).write_comparison(statement)


def resolve_response_attribute(attribute: e.TracetestAttribute, pipes: tuple[e.TracetestPipe, ...]) -> WrittenValue:
    """Return a part of the response. Raises DiagnosticError."""
    name = attribute.name
    if name == f"{RESPONSE_PREFIX}body" and pipes and pipes[0].name == "json_path":
        return _write_json_path(pipes)
    if pipes:
        if name == f"{RESPONSE_PREFIX}body" and len(pipes) == 1 and pipes[0].name == "length":
            return WrittenValue("len(response.body)", "number")
        raise make_pipe_error(pipes[0])
    if name == f"{RESPONSE_PREFIX}body":
        return WrittenValue("response.body", "text")
    if name == f"{RESPONSE_PREFIX}status":
        return WrittenValue("response.status", "number")
    if name == DURATION_ATTRIBUTE:
        return WrittenValue("response.duration", "duration")
    raise make_no_equivalent_error("attribute of the trigger", attribute.at, f"attr:{name}")


def _write_json_path(pipes: tuple[e.TracetestPipe, ...]) -> WrittenValue:
    """Return the value of a ``json_path``. Raises DiagnosticError if it is more than one value."""
    path, *pipes_after = pipes
    argument = path.arguments[0] if len(path.arguments) == 1 else None
    if not isinstance(argument, e.TracetestText) or argument.plain is None:
        raise make_malformed_error("`json_path` takes one text", path.at)
    written = argument.plain.strip()
    is_length = len(pipes_after) == 1 and pipes_after[0].name == "length"
    if is_length:  # the length counts all items of a list
        written, pipes_after = written.removesuffix("[*]"), []
    elif len(pipes_after) == 1 and pipes_after[0].name == "get_index" and written.endswith("[*]"):
        (index,) = pipes_after[0].arguments
        if isinstance(index, e.TracetestNumber) and index.text.isdigit():
            written, pipes_after = f"{written.removesuffix('[*]')}[{index.text}]", []
    if pipes_after:
        raise make_no_equivalent_error("json_path beside other filters", pipes_after[0].at, pipes_after[0].name)
    text = _write_keys(written.removeprefix("$"))
    if text is None:
        construct = f"json_path '{argument.plain}'"
        raise make_no_equivalent_error("json_path with more than names and places", argument.at, construct)
    return (
        WrittenValue(f"len(response.json{text})", "number")
        if is_length
        else WrittenValue(f"response.json{text}", "json")
    )


def _write_keys(path: str) -> str | None:
    """Return the keys of a path, or None if it does not yield one value."""
    keys, end = "", 0
    while end < len(path):
        step = _JSON_PATH_STEP.match(path, end)
        if step is None:
            return None
        name, index, *quoted = step.groups()
        if index is not None:
            keys += f"[{index}]"
        elif name is not None and is_name(name) and "." not in name:
            keys += f".{name}"
        else:
            keys += f"[{format_string(name or quoted[0] or quoted[1] or '')}]"
        end = step.end()
    return keys
