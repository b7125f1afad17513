"""What Tracetest has and a proof has not is refused by name, where it stands; so is what Tracetest would not take."""

from __future__ import annotations

import pytest

from spanproof.query_lang.tracetest.proofs import convert_tests
from spanproof.query_lang.tracetest.unsupported import NO_EQUIVALENT
from spanproof.tests.query_lang.tracetest.definitions_under_test import (
    HTTP,
    OF_BODY,
    ON_SPAN,
    ON_TRIGGER,
    TRIGGER,
    one_spec,
)

RESOURCES = "TestSuite Transaction VariableSet Environment PollingProfile DataStore Config Demo Analyzer TestRunner"
PROVOKED = [
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
    *(
        (name, one_spec(f"'span[name=\"a\"]{name}{more}'", "attr:b.c = 1"), name)
        for name, more in ((":first", ""), (":last", ""), (":nth_child", "(2)"))
    ),
    ("span[…] span[…]", one_spec("'span[name=\"a\"] span[name=\"b\"]'", "attr:b.c = 1"), "span"),
    ("${…} in a selector", one_spec("'span[name=\"${var:A}\"]'", "attr:b.c = 1"), '"${var:A}"'),
    ("decimal in a selector", one_spec("'span[a.b=0.5]'", "attr:b.c = 1"), "0.5"),
    (
        "trigger with other filters",
        one_spec("'span[name=\"Tracetest trigger\" a.b=\"1\"]'", "attr:b.c = 1"),
        'span[name="Tracetest trigger" a.b="1"]',
    ),
    ("assertion without an attribute", one_spec(ON_SPAN, "1 = 1"), "1 = 1"),
    ("attribute of every span", one_spec("''", "attr:b.c = 1"), "attr:b.c = 1"),
    ("count of the trigger", one_spec(ON_TRIGGER, "attr:tracetest.selected_spans.count = 2"),
     "attr:tracetest.selected_spans.count = 2"),
    ("attribute of the trigger", one_spec(ON_TRIGGER, "attr:tracetest.response.headers contains \"json\""),
     "attr:tracetest.response.headers"),
    ("tracetest.response of a span", one_spec(ON_SPAN, f"{OF_BODY} = \"x\""), OF_BODY),
    *(
        (name, one_spec(ON_SPAN, f"attr:{name} = 1"), f"attr:{name}")
        for name in ("tracetest.span.start_time", "tracetest.span.end_time", "span.events")
    ),
    ("tracetest.span.type compared", one_spec(ON_SPAN, 'attr:tracetest.span.type contains "http"'),
     'attr:tracetest.span.type contains "http"'),
    ("attribute in a text", one_spec(ON_SPAN, 'attr:b.c = "x ${attr:d.e}"'), "attr:d.e"),
    ("json_path of an attribute", one_spec(ON_SPAN, "attr:b.c | json_path '$.id' = 1"), "json_path"),
    (
        "json_path with more than names and places",
        one_spec(ON_TRIGGER, f"{OF_BODY} | json_path '$..id' = 1"),
        "'$..id'",
    ),
    ("json_path beside other filters", one_spec(ON_TRIGGER, f"{OF_BODY} | json_path '$.id' | regex 'a' = 1"), "regex"),
    ("regex", one_spec(ON_SPAN, "attr:b.c | regex '[0-9]+' = 1"), "regex"),
    ("regex_group", one_spec(ON_SPAN, "attr:b.c | regex_group '([0-9])' = 1"), "regex_group"),
    ("get_index", one_spec(ON_SPAN, "attr:b.c | get_index 1 = 1"), "get_index"),
    ("type", one_spec(ON_SPAN, "attr:b.c | type = \"number\""), "type"),
    ("JSON contains", one_spec(ON_TRIGGER, f"{OF_BODY} contains '{{\"a\":1}}'"), "'{\"a\":1}'"),
    ("array", one_spec(ON_SPAN, "attr:b.c = [1, 2]"), "["),
    ("contains after a calculation", one_spec(ON_SPAN, "attr:b.c + 1 contains 2"), "attr:b.c + 1"),
    ("not-contains of a variable", one_spec(ON_SPAN, "attr:b.c not-contains var:A"), "var:A"),
    ("duration beside another value", one_spec(ON_SPAN, "attr:tracetest.span.duration < attr:b.c"), "attr:b.c"),
    ("order of texts", one_spec(ON_SPAN, 'attr:b.c < "abc"'), '"abc"'),
]  # fmt: skip


def refusals(text: str) -> list[tuple[str, str]]:
    """What is refused, and the text that it points at."""
    turned = convert_tests(text)
    assert turned.text is None, turned.text
    return [(each.message, text[each.at.start : each.at.end]) for each in turned.diagnostics]


@pytest.mark.parametrize(("construct", "text", "shown"), PROVOKED, ids=[each[0] for each in PROVOKED])
def test_what_has_no_equivalent_is_named_where_it_stands(construct: str, text: str, shown: str) -> None:
    turned = convert_tests(text)
    assert turned.text is None
    found = [(each.help, text[each.at.start : each.at.end]) for each in turned.diagnostics]
    assert found == [(NO_EQUIVALENT[construct], shown)]


def test_every_construct_without_equivalent_is_provoked() -> None:
    assert {construct for construct, _, _ in PROVOKED} == set(NO_EQUIVALENT)


MALFORMED = [
    ("", "there is no definition here"),
    ("a: [", "not YAML"),
    ("- a\n", "names and values are expected here"),
    ("type: Tset\nspec: {}\n", "`Tset` is no type of definition"),
    ("type: Test\nspec: {triger: {}}\n", "`triger` is not known here"),
    ("type: Test\nspec: {name: a, name: b}\n", "`name` stands twice"),
    ("type: Test\nspec: {name: a}\n", "`trigger` is missing here"),
    (TRIGGER.format(type="smtp", body="grpc: {}"), "`smtp` is no type of trigger"),
    (TRIGGER.format(type="http", body="grpc: {}"), "a trigger of type `http` has a `httpRequest`"),
    (TRIGGER.format(type="grpc", body="grpc: {address: here, method: a.B.C}"), '"here" is no address of gRPC'),
    (one_spec("'span[name=\"a\"'", "attr:b.c = 1"), "the selector ends here"),
    (one_spec("'span[name>3]'", "attr:b.c = 1"), "this is no part of a selector"),
    (one_spec("'span[name=\"a\"]:odd'", "attr:b.c = 1"), "`:odd` is no pseudo-class"),
    (one_spec(ON_SPAN, "attr:b.c"), "a comparison is expected after this"),
    (one_spec(ON_SPAN, "attr:b.c = "), "a value is expected after this"),
    (one_spec(ON_SPAN, "attr:b.c = 1 2"), "the end is expected here"),
    (one_spec(ON_SPAN, "attr:b.c | upcase = 1"), "`upcase` is no filter"),
    (one_spec(ON_SPAN, "attr:b.c = " + "[" * 2000), "this is nested too deeply"),
    (one_spec(ON_SPAN, 'attr:tracetest.span.kind = "odd"'), "this is one of client, "),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED)
def test_what_tracetest_would_not_take_either_is_said(text: str, message: str) -> None:
    (found,) = refusals(text)
    assert found[0].startswith(message), found


def test_all_that_is_refused_of_a_file_is_told_at_once() -> None:
    text = one_spec("'span[name=\"a\"]:first'", "attr:b.c | regex 'x' = 1") + "---\ntype: TestSuite\nspec: {}\n"
    assert [shown for _, shown in refusals(text)] == [":first", "TestSuite"]
