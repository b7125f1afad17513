"""Conversion of Tracetest definitions: real ones, documented ones, and the meaning of the claims."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from spanproof.assertions.cases.case_runner import run_cases
from spanproof.assertions.findings.judged_traces import SelectedTraces
from spanproof.assertions.judge.evaluate import Judge
from spanproof.assertions.triggers.responses import TriggerResponse
from spanproof.collector.storage.store import Store
from spanproof.query_lang.check.checker import check_file
from spanproof.query_lang.check.constants import Bindings, Constant
from spanproof.query_lang.syntax.diagnostics import locate_offset
from spanproof.query_lang.syntax.formatter import format_file
from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.syntax.parser import parse_claim, parse_file
from spanproof.query_lang.tracetest.claims import write_claims
from spanproof.query_lang.tracetest.expressions import read_assertion
from spanproof.query_lang.tracetest.printer import ProofNames
from spanproof.query_lang.tracetest.proofs import convert_tests
from spanproof.query_lang.tracetest.selectors import read_selector
from spanproof.query_lang.tracetest.unsupported import NO_EQUIVALENT
from spanproof.tests.query_lang.tracetest.definitions_under_test import (
    BODY_ATTRIBUTE,
    HTTP,
    TRIGGER,
    make_test,
)

DEFINITIONS = Path(__file__).parent / "definitions"
FILES = sorted(DEFINITIONS.rglob("*.yaml"))
DOCUMENT = (Path(__file__).parents[3] / "docs" / "migrate.md").read_text(encoding="utf-8")
UNSUPPORTED = {
    "product-catalog/list.yaml": "26:48: `json_path '$.products[*].id'`",
    **{f"{path.parent.name}/all.yaml": "4:7: `TestSuite`" for path in FILES if path.name == "all.yaml"},
}


def convert_assertion(selector: str, assertion: str, trigger: str = "http") -> list[str]:
    return write_claims(
        read_selector(selector, TextRange), [read_assertion(assertion, TextRange)], ProofNames(), trigger
    )


# ## Real definitions


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_definitions_convert_or_name_construct(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    converted = convert_tests(text)
    wanted = UNSUPPORTED.get(f"{path.parent.name}/{path.name}")
    if wanted is not None:
        (found,) = converted.diagnostics
        position = locate_offset(text, found.at.start)
        assert f"{position.line}:{position.column}: {found.message}" == f"{wanted} has no equivalent in a proof"
        return
    assert converted.text is not None, converted.diagnostics
    file = parse_file(converted.text, "converted.proof")
    assert (file.diagnostics, check_file(file)) == ((), ())
    assert format_file(file) == converted.text
    for name in re.findall(r"^ +(?:- )?name: (.*)$", text, re.MULTILINE):
        assert name.strip("'").replace('"', '\\"') in converted.text


def test_most_real_definitions_convert() -> None:
    assert (len(FILES), len(UNSUPPORTED)) == (25, 9)


# ## Documented conversions


def read_table_rows(heading: str) -> list[list[str]]:
    """Return the cells of the tables below a heading."""
    section = DOCUMENT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


DOCUMENTED = [[cell.strip("`") for cell in row] for row in read_table_rows("Equivalents") if len(row) == 3][2:]


@pytest.mark.parametrize(("selector", "assertion", "claim"), DOCUMENTED)
def test_assertions_convert_as_documented(selector: str, assertion: str, claim: str) -> None:
    assert convert_assertion(selector, assertion) == [claim]


def test_documented_definition_converts_to_documented_proof() -> None:
    definition, proof = re.findall(r"```(?:yaml|proof)\n(.*?)```", DOCUMENT, re.DOTALL)
    assert convert_tests(definition).text == proof


def test_unsupported_constructs_are_documented() -> None:
    assert dict(read_table_rows("Constructs without an equivalent")[2:]) == dict(NO_EQUIVALENT)


# ## Meaning of claims

TRACE = """\
trace orders
  shop "POST /orders" server 0ms..100ms ok { http.request.method: "POST", http.response.status_code: 201, stock: 7 }
    shop "HMSET" client 10ms..20ms { db.system: "redis", db.redis.database_index: 0, db.statement: "HMSET 1" }
    bank "charge" server 30ms..80ms error resource { service.version: "1.4" } { rpc.system: "grpc", amount.was: 9 }
      bank "work" internal 40ms..50ms { amount.left: 5, amount.was: 9, amount.sold: 4 }
"""
SPAN_ASSERTIONS = [
    ('span[name="POST /orders"]', "attr:http.response.status_code = 201", "pass"),
    ('span[name="POST /orders"]', 'attr:http.response.status_code = "201"', "pass"),
    ('span[name="POST /orders"]', "attr:http.response.status_code != 201", "fail"),
    ('span[name="POST /orders"]', "attr:stock >= 8", "fail"),
    ('span[name="POST /orders"]', "attr:missing.x != 1", "fail"),
    ('span[name="POST /orders"]', "attr:tracetest.span.duration <= 100ms", "pass"),
    ('span[name="POST /orders"]', "attr:tracetest.span.duration < 100000000", "fail"),
    ('span[name="POST /orders" tracetest.span.type="http"]', 'attr:name = "POST /orders"', "pass"),
    ('span[tracetest.span.type="http"]', "attr:tracetest.selected_spans.count = 1", "pass"),
    ('span[tracetest.span.type="database"]', "attr:tracetest.selected_spans.count = 1", "pass"),
    ('span[tracetest.span.type="rpc"]', "attr:tracetest.selected_spans.count = 1", "pass"),
    ('span[tracetest.span.type="messaging"]', "attr:tracetest.selected_spans.count = 0", "pass"),
    # the span that Tracetest creates for the request also has the type `general`
    ('span[tracetest.span.type="general"]', "attr:tracetest.selected_spans.count = 2", "pass"),
    ("", "attr:tracetest.selected_spans.count = 5", "pass"),
    ('span[tracetest.span.type="database" name="HMSET" db.redis.database_index="0"]', 'attr:db.statement = "HMSET 1"',
     "pass"),
    ('span[tracetest.span.type="database"]', 'attr:db.statement contains "SET 1"', "pass"),
    ('span[tracetest.span.type="database"]', 'attr:db.statement not-contains "SET 1"', "fail"),
    ('span[tracetest.span.type="database"]', 'attr:db.statement not-contains "S.T"', "pass"),
    ('span[tracetest.span.type="database"]', "attr:db.statement | length = 7", "pass"),
    ('span[service.name="bank"]', 'attr:service.version = "1.4"', "fail"),  # the second has no version
    ('span[service.name="bank" kind="server"]', 'attr:service.version = "1.4"', "pass"),
    ('span[service.name="bank" kind="server"]', 'attr:tracetest.span.status_code = "STATUS_CODE_ERROR"', "pass"),
    ('span[service.name contains "ban"]', "attr:tracetest.selected_spans.count = 2", "pass"),
    ('span[name="charge"], span[name="work"]', "attr:amount.was = 9", "pass"),
    ('span[name="charge"], span[name="work"]', "attr:tracetest.selected_spans.count = 2", "pass"),
    ('span[name="charge"], span[service.name="bank"]', "attr:tracetest.selected_spans.count = 3", "pass"),
    ('span[name="work"]', "attr:amount.left = attr:amount.was - attr:amount.sold", "pass"),
    ('span[name="work"]', "attr:amount.left = attr:amount.was - attr:amount.sold * 2", "fail"),
    ('span[name="work"]', "10 = attr:amount.was - attr:amount.sold * 2", "pass"),  # from left to right
    ('span[name="work"]', "5 > attr:amount.sold", "pass"),
    ('span[name="work"]', "5 < attr:amount.sold", "fail"),
    ('span[name="work" db.system=""]', "attr:tracetest.selected_spans.count = 1", "pass"),
    ('span[name="work"]', 'attr:tracetest.span.type = "general"', "pass"),
    ('span[name="work"]', 'attr:tracetest.span.type != "http"', "pass"),
    ('span[name="absent"]', "attr:tracetest.selected_spans.count = 0", "pass"),
    ('span[name="absent"]', "attr:b.c = 1", "inconclusive"),
    # the spans of the outer selector are inside themselves
    ('span[service.name="bank"] span[service.name="bank"]', "attr:tracetest.selected_spans.count = 2", "pass"),
    ('span[name="charge"] span[kind="internal"]', "attr:amount.left = 5", "pass"),
    ('span[name="work"] span[name="charge"]', "attr:tracetest.selected_spans.count = 0", "pass"),
    ('span[name="POST /orders"] span[service.name="bank"] span[name="work"]', "attr:amount.left = 5", "pass"),
    ('span[name="HMSET"] span[service.name="bank"] span[name="work"]', "attr:tracetest.selected_spans.count = 0",
     "pass"),
    ('span[name="Tracetest trigger"] span[name="work"]', "attr:amount.left = 5", "pass"),
    ('span[service.name="bank"]:first', 'attr:name = "charge"', "pass"),
    ('span[service.name="bank"]:last', 'attr:name = "charge"', "fail"),
    ('span[service.name="bank"]:last', 'attr:name = "work"', "pass"),
    ('span[tracetest.span.type="general"]:last', 'attr:name = "work"', "pass"),
    ('span[service.name="bank"]:first', "attr:tracetest.selected_spans.count = 1", "pass"),
]  # fmt: skip


def test_span_claims_keep_meaning_of_assertions() -> None:
    lines = [TRACE]
    for selector, assertion, outcome in SPAN_ASSERTIONS:
        (claim,) = convert_assertion(selector, assertion)
        lines.append(f"assert {claim}\n  {outcome}\n")
    found = list(run_cases("".join(lines)))
    assert [(each.assertion.claim, each.difference) for each in found if each.difference] == []
    assert len(found) >= len(SPAN_ASSERTIONS)


BODY = '{"id": 7, "name": "Ann", "none": [], "no": {}, "some": ["a", "b"], "price": {"units": "5"}, "a b": true}'
RESPONSE_ASSERTIONS = [
    ("attr:tracetest.response.status = 201", "pass"),
    ("attr:tracetest.response.status >= 300", "fail"),
    (f"{BODY_ATTRIBUTE} contains 'Ann'", "pass"),
    (f"{BODY_ATTRIBUTE} not-contains 'Ann'", "fail"),
    (f"{BODY_ATTRIBUTE} | json_path '$.id' = 7", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$.id' = '7'", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '.id' > 7", "fail"),
    (f"{BODY_ATTRIBUTE} | json_path '$.price.units' >= 5", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$.name' != ''", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$.surname' != ''", "fail"),
    (f"{BODY_ATTRIBUTE} | json_path '$.none' = '[]'", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$.none' != '[]'", "fail"),
    (f"{BODY_ATTRIBUTE} | json_path '$.some' != '[]'", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$.no' != '{{}}'", "fail"),
    (f"{BODY_ATTRIBUTE} | json_path '$.price' != '{{}}'", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$.some[*]' | length = 2", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$.some[*]' | get_index 1 = 'b'", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$[\"a b\"]' = 'true'", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$.id' = var:SEVEN", "pass"),
    (f"{BODY_ATTRIBUTE} | json_path '$.id' < var:SEVEN", "fail"),
    (f"{BODY_ATTRIBUTE} | json_path '$.name' = 'A${{var:NN}}'", "pass"),
    ("attr:tracetest.span.duration < 20ms", "fail"),
]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Store.open() as store, store.cursor() as connection:
        judge = Judge(connection)
        judge.select_traces(SelectedTraces({}))
        yield judge


def judge_claim(judge: Judge, claim: str, body: str) -> str:
    parsed = parse_claim(claim)
    assert parsed.expectation is not None, (claim, parsed.diagnostics)
    variables = {"SEVEN": Constant("7", "text"), "NN": Constant("nn", "text")}
    bindings = Bindings(variables, {None: TriggerResponse(201, body, 20_000_000)})
    return judge.judge(parsed.expectation, claim, bindings).outcome.value


@pytest.mark.parametrize(("assertion", "outcome"), RESPONSE_ASSERTIONS)
def test_response_claims_keep_meaning_of_assertions(judge: Judge, assertion: str, outcome: str) -> None:
    (claim,) = convert_assertion('span[name="Tracetest trigger"]', assertion)
    assert judge_claim(judge, claim, BODY) == outcome


@pytest.mark.parametrize(
    ("body", "expected", "outcome"),
    [("{}", "{\n  \n}", "pass"), ('{"a": 1}', "{\n  \n}", "fail"), ('{"a":1}', '{\n  "a": 1\n}', "pass")],
)
def test_grpc_messages_compare_regardless_of_layout(judge: Judge, body: str, expected: str, outcome: str) -> None:
    (claim,) = convert_assertion('span[name="Tracetest trigger"]', f"{BODY_ATTRIBUTE} = '{expected}'", "grpc")
    assert judge_claim(judge, claim, body) == outcome


# ## Requests


def convert_trigger(text: str) -> list[str]:
    """Return the lines of the `when` that a trigger is converted to."""
    converted = convert_tests(text)
    assert converted.text is not None, converted.diagnostics
    return [line.strip() for line in converted.text.split("proof ")[1].splitlines()[1:-3]]


def test_http_trigger_becomes_http_request() -> None:
    body = HTTP + (
        "method: put\n      headers: [{key: Content-Type, value: text/plain}, {key: x-a, value: '${env:WHO}'}]\n"
        '      body: |\n        {"a": ${var:N}}\n      auth: {type: apiKey, apiKey: {key: k, value: v, in: query}}'
    )
    assert convert_trigger(TRIGGER.format(type="http", body=body)) == [
        'when PUT "http://127.0.0.1/" {',
        'header "Content-Type": "text/plain"',
        'header "x-a": "{WHO}"',
        'body "\\{\\"a\\": {N}}\\n"',
        'query "k": "v"',
        "}",
    ]


def test_authentication_becomes_header() -> None:
    basic = HTTP + "auth: {type: basic, basic: {username: ann, password: secret}}"
    assert 'header "authorization": "Basic YW5uOnNlY3JldA=="' in convert_trigger(
        TRIGGER.format(type="http", body=basic)
    )
    bearer = HTTP + "auth: {type: bearer, bearer: {token: 'Bearer ${var:T}'}}"
    assert 'header "authorization": "Bearer {T}"' in convert_trigger(TRIGGER.format(type="http", body=bearer))


def test_kafka_graphql_and_trace_triggers_become_requests() -> None:
    kafka = "kafka: {brokerUrls: [a:1, b:2], topic: '${var:T}', messageKey: k, messageValue: v, headers: []}"
    assert convert_trigger(TRIGGER.format(type="kafka", body=kafka)) == [
        'when publish kafka "{T}" {', 'broker "a:1,b:2"', 'body "v"', 'key "k"', "}",
    ]  # fmt: skip
    graphql = "graphql: {url: 'http://127.0.0.1/', body: {query: 'query { a }', variables: {n: '${var:N}'}}}"
    assert convert_trigger(TRIGGER.format(type="graphql", body=graphql)) == [
        'when POST "http://127.0.0.1/" {',
        'json { "query": "query \\{ a }", "variables": { "n": "{N}" } }',
        "}",
    ]
    trace = "traceid:\n      id: ${var:TRACE}"
    assert convert_trigger(TRIGGER.format(type="traceid", body=trace)) == ['when trace "{TRACE}"']


def test_outputs_become_variables_and_reserved_names_get_suffix() -> None:
    converted = convert_tests(
        make_test("""'span[service.name="cart"]'""", "attr:order.id = var:ORDER")
        .replace("8080/", "8080/${var:cart}/${var:name}")
        .replace("  specs:", "  outputs:\n  - name: ORDER\n    selector: span[name=\"Tracetest trigger\"]\n"
                 "    value: attr:tracetest.response.body | json_path '$.id'\n  specs:")
    )  # fmt: skip
    assert converted.text == (
        'let cart = env("cart")\nlet name_ = env("name")\n\nproof "A test" {\n'
        '  when GET "http://127.0.0.1:8080/{cart}/{name_}"\n  let ORDER = response.json.id\n\n'
        '  expect every span[service == "cart"] has order.id == ORDER\n}\n'
    )


def test_long_claim_breaks_at_condition() -> None:
    name = "a [b] has c " * 9
    converted = convert_tests(make_test(f"""'span[name="{name}" d.e="[f"]'""", "attr:g.h = 1"))
    assert converted.text is not None, converted.diagnostics
    assert converted.text.splitlines()[-4:-1] == [
        f'  expect every span "{name}"[', '    d.e == "[f"', "  ] has g.h == 1",
    ]  # fmt: skip
