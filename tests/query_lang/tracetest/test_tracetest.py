"""Tracetest's definitions as proofs: real ones, all that is documented, and that claims mean what assertions did."""

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
from spanproof.tests.query_lang.tracetest.definitions_under_test import HTTP, OF_BODY, TRIGGER, one_spec

REAL = Path(__file__).parent / "definitions"
FILES = sorted(REAL.rglob("*.yaml"))
PAGE = (Path(__file__).parents[3] / "docs" / "migrate.md").read_text(encoding="utf-8")
REFUSED = {
    "product-catalog/list.yaml": "26:48: `json_path '$.products[*].id'`",
    **{f"{path.parent.name}/all.yaml": "4:7: `TestSuite`" for path in FILES if path.name == "all.yaml"},
}


def claims(selector: str, assertion: str, trigger: str = "http") -> list[str]:
    return write_claims(
        read_selector(selector, TextRange), [read_assertion(assertion, TextRange)], ProofNames(), trigger
    )


# ## Real definitions


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_definitions_are_turned_or_refused_by_name(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    turned = convert_tests(text)
    wanted = REFUSED.get(f"{path.parent.name}/{path.name}")
    if wanted is not None:
        (found,) = turned.diagnostics
        position = locate_offset(text, found.at.start)
        assert f"{position.line}:{position.column}: {found.message}" == f"{wanted} has no equivalent in a proof"
        return
    assert turned.text is not None, turned.diagnostics
    file = parse_file(turned.text, "turned.proof")
    assert (file.diagnostics, check_file(file)) == ((), ())
    assert format_file(file) == turned.text
    for name in re.findall(r"^ +(?:- )?name: (.*)$", text, re.MULTILINE):
        assert name.strip("'").replace('"', '\\"') in turned.text


def test_most_real_definitions_are_turned() -> None:
    assert (len(FILES), len(REFUSED)) == (25, 9)


# ## What is documented


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables below a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


DOCUMENTED = [[cell.strip("`") for cell in row] for row in rows("What becomes what") if len(row) == 3][2:]


@pytest.mark.parametrize(("selector", "assertion", "claim"), DOCUMENTED)
def test_assertions_become_what_is_documented(selector: str, assertion: str, claim: str) -> None:
    assert claims(selector, assertion) == [claim]


def test_the_definition_that_is_shown_becomes_the_proof_that_is_shown() -> None:
    definition, proof = re.findall(r"```(?:yaml|proof)\n(.*?)```", PAGE, re.DOTALL)
    assert convert_tests(definition).text == proof


def test_all_that_has_no_equivalent_is_documented() -> None:
    assert dict(rows("What has no equivalent")[2:]) == dict(NO_EQUIVALENT)


# ## What claims mean

SCENE = """\
trace orders
  shop "POST /orders" server 0ms..100ms ok { http.request.method: "POST", http.response.status_code: 201, stock: 7 }
    shop "HMSET" client 10ms..20ms { db.system: "redis", db.redis.database_index: 0, db.statement: "HMSET 1" }
    bank "charge" server 30ms..80ms error resource { service.version: "1.4" } { rpc.system: "grpc", amount.was: 9 }
      bank "work" internal 40ms..50ms { amount.left: 5, amount.was: 9, amount.sold: 4 }
"""
MEANT = [
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
    # of the type `general` is the span that Tracetest makes for the request, too
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
    ('span[name="nobody"]', "attr:tracetest.selected_spans.count = 0", "pass"),
    ('span[name="nobody"]', "attr:b.c = 1", "inconclusive"),
]  # fmt: skip


def test_claims_about_spans_mean_what_the_assertions_did() -> None:
    lines = [SCENE]
    for selector, assertion, outcome in MEANT:
        (claim,) = claims(selector, assertion)
        lines.append(f"assert {claim}\n  {outcome}\n")
    found = list(run_cases("".join(lines)))
    assert [(each.assertion.claim, each.difference) for each in found if each.difference] == []
    assert len(found) >= len(MEANT)


BODY = '{"id": 7, "name": "Ann", "none": [], "no": {}, "some": ["a", "b"], "price": {"units": "5"}, "a b": true}'
ANSWERED = [
    ("attr:tracetest.response.status = 201", "pass"),
    ("attr:tracetest.response.status >= 300", "fail"),
    (f"{OF_BODY} contains 'Ann'", "pass"),
    (f"{OF_BODY} not-contains 'Ann'", "fail"),
    (f"{OF_BODY} | json_path '$.id' = 7", "pass"),
    (f"{OF_BODY} | json_path '$.id' = '7'", "pass"),
    (f"{OF_BODY} | json_path '.id' > 7", "fail"),
    (f"{OF_BODY} | json_path '$.price.units' >= 5", "pass"),
    (f"{OF_BODY} | json_path '$.name' != ''", "pass"),
    (f"{OF_BODY} | json_path '$.surname' != ''", "fail"),
    (f"{OF_BODY} | json_path '$.none' = '[]'", "pass"),
    (f"{OF_BODY} | json_path '$.none' != '[]'", "fail"),
    (f"{OF_BODY} | json_path '$.some' != '[]'", "pass"),
    (f"{OF_BODY} | json_path '$.no' != '{{}}'", "fail"),
    (f"{OF_BODY} | json_path '$.price' != '{{}}'", "pass"),
    (f"{OF_BODY} | json_path '$.some[*]' | length = 2", "pass"),
    (f"{OF_BODY} | json_path '$.some[*]' | get_index 1 = 'b'", "pass"),
    (f"{OF_BODY} | json_path '$[\"a b\"]' = 'true'", "pass"),
    (f"{OF_BODY} | json_path '$.id' = var:SEVEN", "pass"),
    (f"{OF_BODY} | json_path '$.id' < var:SEVEN", "fail"),
    (f"{OF_BODY} | json_path '$.name' = 'A${{var:NN}}'", "pass"),
    ("attr:tracetest.span.duration < 20ms", "fail"),
]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Store.open() as store, store.cursor() as connection:
        judge = Judge(connection)
        judge.select_traces(SelectedTraces({}))
        yield judge


def judged(judge: Judge, claim: str, body: str) -> str:
    parsed = parse_claim(claim)
    assert parsed.expectation is not None, (claim, parsed.diagnostics)
    variables = {"SEVEN": Constant("7", "text"), "NN": Constant("nn", "text")}
    bindings = Bindings(variables, {None: TriggerResponse(201, body, 20_000_000)})
    return judge.judge(parsed.expectation, claim, bindings).outcome.value


@pytest.mark.parametrize(("assertion", "outcome"), ANSWERED)
def test_claims_about_the_response_mean_what_the_assertions_did(judge: Judge, assertion: str, outcome: str) -> None:
    (claim,) = claims('span[name="Tracetest trigger"]', assertion)
    assert judged(judge, claim, BODY) == outcome


@pytest.mark.parametrize(
    ("body", "expected", "outcome"),
    [("{}", "{\n  \n}", "pass"), ('{"a": 1}', "{\n  \n}", "fail"), ('{"a":1}', '{\n  "a": 1\n}', "pass")],
)
def test_messages_of_grpc_are_compared_whatever_their_layout(
    judge: Judge, body: str, expected: str, outcome: str
) -> None:
    (claim,) = claims('span[name="Tracetest trigger"]', f"{OF_BODY} = '{expected}'", "grpc")
    assert judged(judge, claim, body) == outcome


# ## Requests


def request(text: str) -> list[str]:
    """The lines of the `when` that a trigger becomes."""
    turned = convert_tests(text)
    assert turned.text is not None, turned.diagnostics
    return [line.strip() for line in turned.text.split("proof ")[1].splitlines()[1:-3]]


def test_a_request_over_http_is_sent_as_it_was() -> None:
    body = HTTP + (
        "method: put\n      headers: [{key: Content-Type, value: text/plain}, {key: x-a, value: '${env:WHO}'}]\n"
        '      body: |\n        {"a": ${var:N}}\n      auth: {type: apiKey, apiKey: {key: k, value: v, in: query}}'
    )
    assert request(TRIGGER.format(type="http", body=body)) == [
        'when PUT "http://127.0.0.1/" {',
        'header "Content-Type": "text/plain"',
        'header "x-a": "{WHO}"',
        'body "\\{\\"a\\": {N}}\\n"',
        'query "k": "v"',
        "}",
    ]


def test_authentication_becomes_a_header() -> None:
    basic = HTTP + "auth: {type: basic, basic: {username: ann, password: secret}}"
    assert 'header "authorization": "Basic YW5uOnNlY3JldA=="' in request(TRIGGER.format(type="http", body=basic))
    bearer = HTTP + "auth: {type: bearer, bearer: {token: 'Bearer ${var:T}'}}"
    assert 'header "authorization": "Bearer {T}"' in request(TRIGGER.format(type="http", body=bearer))


def test_messages_and_questions_are_sent_as_they_were() -> None:
    kafka = "kafka: {brokerUrls: [a:1, b:2], topic: '${var:T}', messageKey: k, messageValue: v, headers: []}"
    assert request(TRIGGER.format(type="kafka", body=kafka)) == [
        'when publish kafka "{T}" {', 'broker "a:1,b:2"', 'body "v"', 'key "k"', "}",
    ]  # fmt: skip
    graphql = "graphql: {url: 'http://127.0.0.1/', body: {query: 'query { a }', variables: {n: '${var:N}'}}}"
    assert request(TRIGGER.format(type="graphql", body=graphql)) == [
        'when POST "http://127.0.0.1/" {',
        'json { "query": "query \\{ a }", "variables": { "n": "{N}" } }',
        "}",
    ]
    trace = "traceid:\n      id: ${var:TRACE}"
    assert request(TRIGGER.format(type="traceid", body=trace)) == ['when trace "{TRACE}"']


def test_outputs_become_values_and_names_of_the_language_are_kept_free() -> None:
    turned = convert_tests(
        one_spec("""'span[service.name="cart"]'""", "attr:order.id = var:ORDER")
        .replace("8080/", "8080/${var:cart}/${var:name}")
        .replace("  specs:", "  outputs:\n  - name: ORDER\n    selector: span[name=\"Tracetest trigger\"]\n"
                 "    value: attr:tracetest.response.body | json_path '$.id'\n  specs:")
    )  # fmt: skip
    assert turned.text == (
        'let cart = env("cart")\nlet name_ = env("name")\n\nproof "A test" {\n'
        '  when GET "http://127.0.0.1:8080/{cart}/{name_}"\n  let ORDER = response.json.id\n\n'
        '  expect every span[service == "cart"] has order.id == ORDER\n}\n'
    )


def test_a_long_claim_is_broken_where_its_condition_stands_not_in_a_text() -> None:
    name = "a [b] has c " * 9
    turned = convert_tests(one_spec(f"""'span[name="{name}" d.e="[f"]'""", "attr:g.h = 1"))
    assert turned.text is not None, turned.diagnostics
    assert turned.text.splitlines()[-4:-1] == [
        f'  expect every span "{name}"[', '    d.e == "[f"', "  ] has g.h == 1",
    ]  # fmt: skip
