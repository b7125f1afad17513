"""Errors of the conversion: unsupported constructs by name and position, and malformed definitions."""

from __future__ import annotations

import pytest

from spanproof.query_lang.tracetest.proofs import convert_tests
from spanproof.query_lang.tracetest.unsupported import NO_EQUIVALENT
from spanproof.tests.query_lang.tracetest.definitions_under_test import (
    BODY_ATTRIBUTE,
    HTTP,
    SPAN_SELECTOR,
    TRIGGER,
    TRIGGER_SELECTOR,
    make_test,
)

RESOURCES = "TestSuite Transaction VariableSet Environment PollingProfile DataStore Config Demo Analyzer TestRunner"
UNSUPPORTED = [
    *((name, f"type: {name}\nspec: {{}}\n", name) for name in RESOURCES.split()),
    *(
        (name, TRIGGER.format(type=name, body="{}: {{}}".format("playwrightEngine")), name)
        for name in ("cypress", "playwright", "playwrightengine", "artillery", "k6")
    ),
    (
        "basic auth with variables",
        TRIGGER.format(type="http", body=HTTP + 'auth: {type: basic, basic: {username: a, password: "${var:P}"}}'),
        '{username: a, password: "${var:P}"}',
    ),
    (
        "kafka authentication",
        TRIGGER.format(type="kafka", body="kafka: {brokerUrls: [a:1], topic: t, authentication: {type: plain}}"),
        "{type: plain}",
    ),
    ("sslVerification: false", TRIGGER.format(type="http", body=HTTP + "sslVerification: false"), "false"),
    ("HTTP method", TRIGGER.format(type="http", body=HTTP + "method: PURGE"), "PURGE"),
    (
        "traceparent header",
        TRIGGER.format(type="http", body=HTTP + "headers: [{key: Traceparent, value: x}]"),
        "Traceparent",
    ),
    (
        "gRPC auth",
        TRIGGER.format(type="grpc", body="grpc: {address: a:1, method: a.B.C, auth: {type: bearer}}"),
        "{type: bearer}",
    ),
    ("function", TRIGGER.format(type="traceid", body='traceid: {id: "x${uuid()}"}'), "uuid"),
    ("expression in a trigger", TRIGGER.format(type="traceid", body='traceid: {id: "${var:A + 1}"}'), "var:A + 1"),
    (
        "variable outside of a text in JSON",
        TRIGGER.format(type="grpc", body="grpc: {address: a:1, method: a.B.C, request: '{\"n\": ${var:N}}'}"),
        "'{\"n\": ${var:N}}'",
    ),
    ("skipTraceCollection with spans", "type: Test\nspec:\n  skipTraceCollection: true\n  trigger: {type: traceid,"
     " traceid: {id: x}}\n", "true"),
    ("output of a span", "type: Test\nspec:\n  trigger: {type: traceid, traceid: {id: x}}\n  outputs:\n  - name: A\n"
     "    selector: 'span[name=\"a\"]'\n    value: attr:b.c\n", "'span[name=\"a\"]'"),
    (":nth_child", make_test("'span[name=\"a\"]:nth_child(2)'", "attr:b.c = 1"), ":nth_child"),
    *(
        ("position and other selectors", make_test(f"'{selectors}'", "attr:b.c = 1"), shown)
        for selectors, shown in (
            ('span[name="a"]:first span[name="b"]', "span"),
            ('span[name="a"] span[name="b"]:last', ":last"),
            ('span[name="a"], span[name="b"]:last', 'span[name="b"]'),
        )
    ),
    ("${…} in a selector", make_test("'span[name=\"${var:A}\"]'", "attr:b.c = 1"), '"${var:A}"'),
    ("decimal in a selector", make_test("'span[a.b=0.5]'", "attr:b.c = 1"), "0.5"),
    (
        "trigger with other filters",
        make_test("'span[name=\"Tracetest trigger\" a.b=\"1\"]'", "attr:b.c = 1"),
        'span[name="Tracetest trigger" a.b="1"]',
    ),
    ("assertion without an attribute", make_test(SPAN_SELECTOR, "1 = 1"), "1 = 1"),
    ("attribute of every span", make_test("''", "attr:b.c = 1"), "attr:b.c = 1"),
    ("count of the trigger", make_test(TRIGGER_SELECTOR, "attr:tracetest.selected_spans.count = 2"),
     "attr:tracetest.selected_spans.count = 2"),
    ("attribute of the trigger", make_test(TRIGGER_SELECTOR, "attr:tracetest.response.headers contains \"json\""),
     "attr:tracetest.response.headers"),
    ("tracetest.response of a span", make_test(SPAN_SELECTOR, f"{BODY_ATTRIBUTE} = \"x\""), BODY_ATTRIBUTE),
    *(
        (name, make_test(SPAN_SELECTOR, f"attr:{name} = 1"), f"attr:{name}")
        for name in ("tracetest.span.start_time", "tracetest.span.end_time", "span.events")
    ),
    ("tracetest.span.type compared", make_test(SPAN_SELECTOR, 'attr:tracetest.span.type contains "http"'),
     'attr:tracetest.span.type contains "http"'),
    ("attribute in a text", make_test(SPAN_SELECTOR, 'attr:b.c = "x ${attr:d.e}"'), "attr:d.e"),
    ("json_path of an attribute", make_test(SPAN_SELECTOR, "attr:b.c | json_path '$.id' = 1"), "json_path"),
    (
        "json_path with more than names and places",
        make_test(TRIGGER_SELECTOR, f"{BODY_ATTRIBUTE} | json_path '$..id' = 1"),
        "'$..id'",
    ),
    (
        "json_path beside other filters",
        make_test(TRIGGER_SELECTOR, f"{BODY_ATTRIBUTE} | json_path '$.id' | regex 'a' = 1"),
        "regex",
    ),
    ("regex", make_test(SPAN_SELECTOR, "attr:b.c | regex '[0-9]+' = 1"), "regex"),
    ("regex_group", make_test(SPAN_SELECTOR, "attr:b.c | regex_group '([0-9])' = 1"), "regex_group"),
    ("get_index", make_test(SPAN_SELECTOR, "attr:b.c | get_index 1 = 1"), "get_index"),
    ("type", make_test(SPAN_SELECTOR, "attr:b.c | type = \"number\""), "type"),
    ("JSON contains", make_test(TRIGGER_SELECTOR, f"{BODY_ATTRIBUTE} contains '{{\"a\":1}}'"), "'{\"a\":1}'"),
    ("array", make_test(SPAN_SELECTOR, "attr:b.c = [1, 2]"), "["),
    ("contains after a calculation", make_test(SPAN_SELECTOR, "attr:b.c + 1 contains 2"), "attr:b.c + 1"),
    ("not-contains of a variable", make_test(SPAN_SELECTOR, "attr:b.c not-contains var:A"), "var:A"),
    ("duration beside another value", make_test(SPAN_SELECTOR, "attr:tracetest.span.duration < attr:b.c"), "attr:b.c"),
    ("order of texts", make_test(SPAN_SELECTOR, 'attr:b.c < "abc"'), '"abc"'),
]  # fmt: skip


def find_errors(text: str) -> list[tuple[str, str]]:
    """Return the messages of a conversion, each with the text in its range."""
    converted = convert_tests(text)
    assert converted.text is None, converted.text
    return [(each.message, text[each.at.start : each.at.end]) for each in converted.diagnostics]


@pytest.mark.parametrize(("construct", "text", "shown"), UNSUPPORTED, ids=[each[0] for each in UNSUPPORTED])
def test_unsupported_construct_is_reported_at_position(construct: str, text: str, shown: str) -> None:
    converted = convert_tests(text)
    assert converted.text is None
    found = [(each.help, text[each.at.start : each.at.end]) for each in converted.diagnostics]
    assert found == [(NO_EQUIVALENT[construct], shown)]


def test_every_unsupported_construct_has_example() -> None:
    assert {construct for construct, _, _ in UNSUPPORTED} == set(NO_EQUIVALENT)


MALFORMED = [
    ("", "the file has no definition"),
    ("a: [", "not YAML"),
    ("- a\n", "names and values are expected here"),
    ("type: Tset\nspec: {}\n", "`Tset` is not a type of definition"),
    ("type: Test\nspec: {triger: {}}\n", "`triger` is not known here"),
    ("type: Test\nspec: {name: a, name: b}\n", "`name` occurs twice"),
    ("type: Test\nspec: {name: a}\n", "`trigger` is missing here"),
    (TRIGGER.format(type="smtp", body="grpc: {}"), "`smtp` is not a type of trigger"),
    (TRIGGER.format(type="http", body="grpc: {}"), "a trigger of type `http` has a `httpRequest`"),
    (TRIGGER.format(type="grpc", body="grpc: {address: here, method: a.B.C}"), '"here" is not a valid address of gRPC'),
    (make_test("'span[name=\"a\"'", "attr:b.c = 1"), "the selector ends here"),
    (make_test("'span[name>3]'", "attr:b.c = 1"), "this is not part of a selector"),
    (make_test("'span[name=\"a\"]:odd'", "attr:b.c = 1"), "`:odd` is not a pseudo-class"),
    (make_test(SPAN_SELECTOR, "attr:b.c"), "a comparison is expected after this"),
    (make_test(SPAN_SELECTOR, "attr:b.c = "), "a value is expected after this"),
    (make_test(SPAN_SELECTOR, "attr:b.c = 1 2"), "the end is expected here"),
    (make_test(SPAN_SELECTOR, "attr:b.c | upcase = 1"), "`upcase` is not a filter"),
    (make_test(SPAN_SELECTOR, "attr:b.c = " + "[" * 2000), "this is nested too deeply"),
    (make_test(SPAN_SELECTOR, 'attr:tracetest.span.kind = "odd"'), "this is one of client, "),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_malformed_definition_is_reported(text: str, message: str) -> None:
    (found,) = find_errors(text)
    assert found[0].startswith(message), found


def test_all_errors_of_file_are_reported_together() -> None:
    text = make_test("'span[name=\"a\"]:nth_child(1)'", "attr:b.c | regex 'x' = 1") + "---\ntype: TestSuite\nspec: {}\n"
    assert [shown for _, shown in find_errors(text)] == [":nth_child", "TestSuite"]
