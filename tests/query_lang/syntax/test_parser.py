"""Parser: positions, precedence, literals, selections and paths."""

from __future__ import annotations

import re
import sys
import unicodedata
from decimal import Decimal

import pytest

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.literals import WORD_CHARACTERS
from spanproof.query_lang.syntax.parser import parse_claim, parse_file

EXAMPLE = """\
# checkout.proof
let base = env("BASE_URL") or "http://127.0.0.1:8080"

proof "checkout charges the card once" [smoke, checkout] {
  when POST "{base}/checkout" {
    header "x-user": "u-1"
    json { "cart": "c-42", "amount": 1999 }
  }
  settle within 10s

  expect response.status == 201
  expect response.json.order.state == "paid"
  expect path gateway -> orders -> { inventory, payments -> bank }
  expect no path orders -> legacy-billing
  expect inventory before payments
  expect duration(gateway "POST /checkout") < 800ms
  expect budget 800ms { gateway: 50ms, orders: 150ms, payments: 500ms }
  expect count(orders -> payments "POST /charge") == 1
  expect every span[db.system.name == "postgresql"] has duration < 50ms
}

proof "a bank outage is survived" [resilience] {
  when POST "{base}/checkout" { header "x-fault": "bank=503"  json { "cart": "c-42", "amount": 1999 } }
  expect response.status == 201
  expect retry payments -> bank { attempts == 3, backoff >= 100ms, backoff grows, exhausted }
  expect fallback payments -> bank => bank-backup
}

proof "release 1.4.2 is healthy" [deploy] {
  given traces from gateway "POST /checkout" over last 15m where resource.service.version == "1.4.2"
  compare baseline from gateway "POST /checkout" over last 24h where resource.service.version == "1.4.1"

  expect count(traces) >= 500
  expect error_rate(payments) < 1%
  expect p95(duration(gateway)) < 400ms
  expect p95(duration(*)) < 500ms by service
  expect p95(duration(gateway)) <= baseline * 1.1
  expect error_rate(gateway) not worse than baseline by 0.5pp
  expect path gateway -> orders -> payments in >= 99% of traces
  expect circuit payments -> bank { opens after 5 failures, holds >= 30s }
}
"""


def parse_valid_claim(text: str) -> s.Claim:
    parsed = parse_claim(text)
    assert parsed.diagnostics == ()
    assert parsed.expectation is not None
    return parsed.expectation.claim


def parse_condition(text: str) -> s.Expression:
    found = parse_valid_claim(text)
    assert isinstance(found, s.ComparisonClaim)
    return found.condition


def format_tree(node: object) -> str:
    """Return a tree as text, with every operation in parentheses."""
    match node:
        case s.Number():
            return f"{node.value.normalize():f}{node.unit}"
        case s.Text():
            return f'"{node.plain}"'
        case s.Name():
            return node.text
        case s.Compare() | s.Arithmetic():
            return f"({format_tree(node.left)} {node.operator} {format_tree(node.right)})"
        case s.AnyOf():
            return f"({' or '.join(format_tree(term) for term in node.terms)})"
        case s.AllOf():
            return f"({' and '.join(format_tree(term) for term in node.terms)})"
        case s.Not():
            return f"(not {format_tree(node.term)})"
        case s.Negative():
            return f"(-{format_tree(node.value)})"
        case s.ValueRange():
            return f"{format_tree(node.low)}..{format_tree(node.high)}"
        case s.OneOf():
            options = ", ".join(format_tree(option) for option in node.options)
            return f"({format_tree(node.value)} {'not in' if node.negated else 'in'} [{options}])"
        case s.Function():
            return f"{node.name}({', '.join(format_tree(argument) for argument in node.arguments)})"
        case s.Step():
            return " | ".join(format_tree(target) for target in node.targets)
        case s.PathSegment():
            branches = ", ".join(format_tree(branch) for branch in node.branches)
            return f"{format_tree(node.step)} {node.arrow} {{{branches}}}" if node.branches else format_tree(node.step)
        case s.CallSelection():
            return (
                f"{'try ' if node.attempts else ''}{format_tree(node.caller)} {node.arrow} {format_tree(node.callee)}"
            )
        case s.SpanSelection():
            words = ["span"] if node.spans == "any" else []
            words += [format_tree(node.service)] if node.service else [] if words else ["*"]
            words += [format_tree(node.operation)] if node.operation else []
            return " ".join(words) + (f"[{format_tree(node.where)}]" if node.where else "")
        case s.Response():
            return f"response({node.step}, {node.part}, {node.keys})"
        case s.Within():
            return f"{node.what}[{format_tree(node.where)}]"
    raise AssertionError(type(node).__name__)


def test_language_example_parses() -> None:
    file = parse_file(EXAMPLE, "checkout.proof")
    assert file.diagnostics == ()
    base, *proofs = file.items
    assert isinstance(base, s.Let)
    assert [(proof.name, proof.tags, len(proof.statements)) for proof in proofs if isinstance(proof, s.Proof)] == [
        ("checkout charges the card once", ("smoke", "checkout"), 11),
        ("a bank outage is survived", ("resilience",), 4),
        ("release 1.4.2 is healthy", ("deploy",), 10),
    ]


def test_node_ranges_are_nested() -> None:
    def check(node: object) -> None:
        for child in s.iter_children(node):
            assert node.at.start <= child.at.start <= child.at.end <= node.at.end  # type: ignore[attr-defined]
            check(child)

    for item in parse_file(EXAMPLE, "x").items:
        check(item)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (s.Budget, ["budget 800ms { gateway: 50ms, orders: 150ms, payments: 500ms }"]),
        (s.Before, ["inventory before payments"]),
        (s.SettleStatement, ["settle within 10s"]),
        (s.ShareClause, ["in >= 99% of traces"]),
        (s.Flag, ["backoff grows", "exhausted"]),
        (s.OpensAfter, ["opens after 5 failures"]),
        (s.Response, ["response.status", "response.json.order.state", "response.status"]),
        (s.Fallback, ["fallback payments -> bank => bank-backup"]),
    ],
)
def test_node_range_is_its_text(kind: type, texts: list[str]) -> None:
    nodes = [node for item in parse_file(EXAMPLE, "x").items for node in s.walk(item) if isinstance(node, kind)]
    assert [EXAMPLE[node.at.start : node.at.end] for node in nodes] == texts


# ## Precedence


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("1 + 2 * 3 == 7", "((1 + (2 * 3)) == 7)"),
        ("(1 + 2) * 3 == 9", "(((1 + 2) * 3) == 9)"),
        ("1 - 2 - 3 == 0", "(((1 - 2) - 3) == 0)"),
        ("8 / 4 / 2 == 1", "(((8 / 4) / 2) == 1)"),
        ("-1 + 2 == 1", "(((-1) + 2) == 1)"),
        ("- -1 * 2 == 2", "(((-(-1)) * 2) == 2)"),
        ("a < 1 or b < 2 and c < 3", "((a < 1) or ((b < 2) and (c < 3)))"),
        ("not a < 1 and b", "((not (a < 1)) and b)"),
        ("not (a or b)", "(not (a or b))"),
        ("a or b or c", "(a or b or c)"),
        ("a + 1 in [1, 2..3]", "((a + 1) in [1, 2..3])"),
        ("a not in 200..299", "(a not in [200..299])"),
        ('a =~ "x" and b !~ "y" and c contains "z"', '((a =~ "x") and (b !~ "y") and (c contains "z"))'),
        ("p(99.9, duration(a)) <= baseline * 1.1", "(p(99.9, duration(a)) <= (baseline * 1.1))"),
        ('env("A") or "b"', '(env("A") or "b")'),
    ],
)
def test_operators_have_documented_precedence(text: str, tree: str) -> None:
    assert format_tree(parse_condition(text)) == tree


# ## Names, numbers, strings


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a-b == 1", "(a-b == 1)"),
        ("a - b == 1", "((a - b) == 1)"),
        ("a -b == 1", "((a - b) == 1)"),
        ("a-b-c.d_e == 1", "(a-b-c.d_e == 1)"),
        ("http.response.status_code == 1", "(http.response.status_code == 1)"),
        ('span."odd name" == 1', "(span.odd name == 1)"),
        ('app.a.b."odd \\"name\\"" == 1', '(app.a.b.odd "name" == 1)'),
        ("_a1 == 1", "(_a1 == 1)"),
        ("a->b == 1", "(a -> b == 1)"),
        ("1-2 == 1", "((1 - 2) == 1)"),
    ],
)
def test_hyphen_inside_name_belongs_to_name(text: str, tree: str) -> None:
    assert format_tree(parse_condition(text)) == tree


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5", "5", ""), ("1.5", "1.5", ""), ("1.5s", "1500000000", "ns"), ("3us", "3000", "ns"), ("3µs", "3000", "ns"),
        ("7ns", "7", "ns"), ("2m", "120000000000", "ns"), ("1h", "3600000000000", "ns"), ("1d", "86400000000000", "ns"),
        ("0.1ms", "100000", "ns"), ("1%", "0.01", "%"), ("0.5pp", "0.005", "pp"), ("20/s", "20", "/s"),
        ("9223372036854775807", "9223372036854775807", ""),
    ],
)  # fmt: skip
def test_numbers_are_exact_with_unit(text: str, value: str, unit: str) -> None:
    compared = parse_condition(f"a == {text}")
    assert isinstance(compared, s.Compare)
    assert isinstance(compared.right, s.Number)
    assert (compared.right.value, compared.right.unit) == (Decimal(value), unit)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (r'"plain"', ("plain",)),
        (r'""', ("",)),
        (r'"{base}/x"', ("base", "/x")),
        (r'"a{b}{c.d}e"', ("a", "b", "c.d", "e")),
        (r'"\{base\}"', ("{base}",)),
        (r'"{}"', ("{}",)),
        (r'"{ base }"', ("{ base }",)),
        (r'"^[0-9]{2}$"', ("^[0-9]{2}$",)),
        (r'"a\"b\\c\n\t\u00e9"', ('a"b\\c\n\té',)),
        (r'"# no comment"', ("# no comment",)),
        ('"größe"', ("größe",)),
    ],
)
def test_strings_parse_escapes_and_placeholders(text: str, parts: tuple[str, ...]) -> None:
    compared = parse_condition(f"a == {text}")
    assert isinstance(compared, s.Compare)
    assert isinstance(compared.right, s.Text)
    assert tuple(part if isinstance(part, str) else part.text for part in compared.right.parts) == parts


def test_placeholder_in_string_has_own_range() -> None:
    text = 'a == "x{base}/{other}"'
    names = [node for node in s.walk(parse_valid_claim(text)) if isinstance(node, s.Name)]
    assert [text[name.at.start : name.at.end] for name in names] == ["a", "base", "other"]


# ## Selections and paths


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("payments", "payments"),
        ('"My Service"', '"My Service"'),
        ('payments "POST /charge"', 'payments "POST /charge"'),
        ('"My Service" "GET /"', '"My Service" "GET /"'),
        ("*", "*"),
        ("payments[http.response.status_code >= 500]", "payments[(http.response.status_code >= 500)]"),
        ('span[db.system.name == "redis"]', 'span[(db.system.name == "redis")]'),
        ('span payments "validate"', 'span payments "validate"'),
        ('span "SELECT *"', 'span "SELECT *"'),
        ("span", "span"),
        ('orders -> payments "POST /charge"', 'orders -> payments "POST /charge"'),
        ("* -> bank", "* -> bank"),
        ("orders ~> notifications", "orders ~> notifications"),
        ("try orders -> payments[attempt > 1]", "try orders -> payments[(attempt > 1)]"),
        ('a[event[name == "exception" and exception.type == "Timeout"]]',
         'a[event[((name == "exception") and (exception.type == "Timeout"))]]'),
        ('a[link[trace_id == "x"]]', 'a[link[(trace_id == "x")]]'),
    ],
)  # fmt: skip
def test_selections_parse(text: str, tree: str) -> None:
    found = parse_valid_claim(f"no {text}")
    assert isinstance(found, s.No)
    node = found.selection
    if isinstance(node, s.SpanSelection) and isinstance(node.service, s.Text) and node.spans == "any":
        tree = text
    assert format_tree(node) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", "a"),
        ("a -> b ->> c ~> d", "a -> {b ->> {c ~> {d}}}"),
        ("a -> { b, c -> d }", "a -> {b, c -> {d}}"),
        ("a -> { b\n c -> { d\n\n e, } }", "a -> {b, c -> {d, e}}"),
        ('a "GET /" -> (b | c "x")', 'a "GET /" -> {b | c "x"}'),
    ],
)
def test_paths_parse(text: str, tree: str) -> None:
    found = parse_valid_claim(f"path {text}")
    assert isinstance(found, s.Path)
    assert format_tree(found.segment) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("response.status", "response(None, status, ())"),
        ('response.headers["x-a"]', "response(None, headers, ('x-a',))"),
        ("response.json.a.b[0]", "response(None, json, ('a', 'b', 0))"),
        ('response.json.a["b c"][1].d.e', "response(None, json, ('a', 'b c', 1, 'd', 'e'))"),
        ("login.response.json.id", "response(login, json, ('id',))"),
        ("http.response.status_code", "http.response.status_code"),
    ],
)
def test_response_parts_differ_from_attributes(text: str, tree: str) -> None:
    compared = parse_condition(f"{text} == 1")
    assert isinstance(compared, s.Compare)
    assert format_tree(compared.left) == tree


@pytest.mark.parametrize(
    ("text", "kind", "bounds"),
    [
        ("over last 15m", "last", ["900000000000ns"]),
        ('since "2026-01-31T12:00:00Z"', "since", ['"2026-01-31T12:00:00Z"']),
        ("since start", "since", ["start"]),
        ('between "2026-01-31" and end', "between", ['"2026-01-31"', "end"]),
    ],
)
def test_windows_parse(text: str, kind: str, bounds: list[str]) -> None:
    (proof,) = parse_file(f'proof "p" {{ given traces {text}\n expect count(traces) == 1 }}', "x").items
    assert isinstance(proof, s.Proof)
    given = proof.statements[0]
    assert isinstance(given, s.Given)
    assert (given.window.kind, [format_tree(bound) for bound in given.window.bounds]) == (kind, bounds)


# ## Suffixes


def test_claim_suffixes_parse_in_order() -> None:
    text = "p95(duration(a)) < 1s in >= 99% of traces by service, name having count >= 5 with confidence 95%"
    found = parse_claim(f'{text} as "fast {{x}}"')
    expectation = found.expectation
    assert expectation is not None
    assert expectation.share is not None
    assert expectation.share.operator == ">="
    assert expectation.having is not None
    assert expectation.having.operator == ">="
    parts = (expectation.share.value, *expectation.by, expectation.having.value, expectation.confidence)
    assert [format_tree(part) for part in parts] == ["0.99%", "service", "name", "5", "0.95%"]
    assert expectation.label is not None
    assert format_tree(expectation.label) == '"fast {x}"'


@pytest.mark.parametrize(
    ("text", "margin", "floor", "is_two_sided"),
    [
        ("p50(duration(a)) not worse than baseline by 10%", "0.1%", None, False),
        ("p50(duration(a)) within 20% or 1ms of baseline", "0.2%", "1000000ns", True),
    ],
)
def test_baseline_tests_have_a_margin(text: str, margin: str, floor: str | None, is_two_sided: bool) -> None:
    expectation = parse_claim(text).expectation
    assert expectation is not None
    claim = expectation.claim
    assert isinstance(claim, s.BaselineTest)
    assert claim.is_two_sided is is_two_sided
    assert format_tree(claim.reference) == "baseline"
    assert format_tree(claim.margin.value) == margin
    assert (claim.margin.floor and format_tree(claim.margin.floor)) == floor


# ## Names


@pytest.mark.parametrize(
    "name", ["größe", "サービス", "имя-2", "क्षेत्र", "δ.ε", "_ä", "größe".replace("ö", "o\u0308"), "beforeé", "é9"]
)
def test_name_has_letters_of_any_script(name: str) -> None:
    assert (
        format_tree(parse_condition(f"count({name}[span.{name} == 1]) == 2"))
        == f"(count({name}[(span.{name} == 1)]) == 2)"
    )


@pytest.mark.parametrize("text", ["count(grö€e) == 1", "count(a\u00a0b) == 1", "count(9größe) == 1", "count(a—b) == 1"])
def test_other_characters_are_no_part_of_names(text: str) -> None:
    assert parse_claim(text).diagnostics


def test_marks_are_part_of_words_and_other_characters_are_not() -> None:
    pattern = re.compile(f"[{WORD_CHARACTERS}]")
    for code in range(128, sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category not in ("Cn", "Me"):
            assert bool(pattern.match(chr(code))) == (category[0] in "LN" or category in ("Mn", "Mc")), hex(code)
