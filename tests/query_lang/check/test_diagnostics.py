"""Diagnostics: each one for its example, with its range. No text causes a traceback."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import spanproof
from spanproof.collector.traces.catalog import Catalog
from spanproof.query_lang.check.checker import check_claim, check_file
from spanproof.query_lang.compile.queries import read_query
from spanproof.query_lang.load.modules import load_module
from spanproof.query_lang.load.submitted_proofs import read_submitted_proof
from spanproof.query_lang.load.unknown_names import find_unknown_names
from spanproof.query_lang.syntax.diagnostics import Diagnostic, find_nearest, suggest_names
from spanproof.query_lang.syntax.parser import parse_claim, parse_file

QUERY_LANG = Path(spanproof.__file__).parent / "query_lang"
SOURCES = [
    QUERY_LANG / name
    for name in (
        "check/checker.py",
        "check/claims.py",
        "check/comparisons.py",
        "check/requests.py",
        "check/types.py",
        "load/unknown_names.py",
        "syntax/literals.py",
        "syntax/parser.py",
        "syntax/transformer.py",
    )
]
DOCUMENT = Path(__file__).parents[3] / "docs" / "diagnostics.md"
PROOF = 'proof "p" {{\n  when GET "http://x/" as one\n  {}\n}}\n'
EXPECT = "expect response.status == 200"
WITH = f'proof "p" {{ when %s\n {EXPECT} }}'
WITH_BASELINE = 'proof "p" { given traces over last 1h\n compare baseline from a over last 1d\n expect %s }'

# claim, id, text in the range
CLAIMS = [
    ("response.status = 200", "single-equals", "="),
    ("count(a) == 5sec", "unknown-unit", "5sec"),
    ("count(a) == 1e9", "unknown-unit", "1e9"),
    ("duration(a) < 0.5ns", "precision", "0.5ns"),
    (r'some a "\q"', "escape", r"\q"),
    ("count(a) == (1", "unclosed", "}"),
    ("count(a) in [1, 2", "unclosed", "}"),
    ('some a "x', "unclosed", '"'),
    ("count(a) == (1]", "unclosed", "]"),
    ("count(a) == 5.5.5", "syntax", "."),
    ("count(a) in 200...299", "syntax", "."),
    ("path a -> (b)", "syntax", ")"),
    ("path a => b", "syntax", "=>"),
    ("a[error][root] before b", "syntax", "[root]"),
    ("response.json[0.5] == 1", "syntax", "[0.5]"),
    ("response.headers == 1", "syntax", "response.headers"),
    ("count(grö€e) == 1", "syntax", "€"),
    ("path a -> span b", "not-a-service", "span b"),
    ("fallback a -> b => c -> d", "not-a-service", "c -> d"),
    ("self_time(a -> b) < 1s", "not-a-service", "a -> b"),
    ("circuit a -> b { opens after 5 successes }", "unknown-word", "successes"),
    ("every a has kind == sever", "unknown-word", "sever"),
    ("every a has status in [ok, bad]", "unknown-word", "bad"),
    ("retry a -> b { tries == 3 }", "unknown-word", "tries == 3"),
    ("no event[name == 1][error]", "syntax", "[error]"),
    ("count(a[event[link[trace_id == \"x\"]]]) == 1", "misplaced", 'link[trace_id == "x"]'),
    ("a -> b == 1", "misplaced", "a -> b"),
    ("count(a ->> b) == 1", "misplaced", "a ->> b"),
    ("every a has count(b) == 1", "misplaced", "count(b)"),
    ("exists(a) == 1", "misplaced", "exists(a)"),
    ("self_time(traces) < 1s", "misplaced", "traces"),
    ("retry try a -> b { recovered }", "misplaced", "try a -> b"),
    ("retry a -> b { opens after 3 failures }", "syntax", "3"),
    ("path a in >= error_rate(a) of traces", "misplaced", "error_rate(a)"),
    ("timeout a -> b within max(duration(a))", "misplaced", "max(duration(a))"),
    ("duration(a) < 1s by http.response.status_code in >= 1% of traces", "syntax", "in"),
    ("path a by service", "misplaced", "service"),
    ("circuit a -> b { opens after 3 failures } in >= 99% of traces", "misplaced", "in >= 99% of traces"),
    ("response.status == 201 in >= 99% of traces", "misplaced", "in >= 99% of traces"),
    ('response matches schema "x.json" in >= 99% of traces', "misplaced", "in >= 99% of traces"),
    ("every a has duration", "not-a-condition", "duration"),
    ("every a has http.route", "not-a-condition", "http.route"),
    ("path a in >= 99 of traces", "type-mismatch", "99"),
    ("timeout a -> b within 5", "type-mismatch", "5"),
    ("count(a) < 5ms", "type-mismatch", "count(a) < 5ms"),
    ("duration(a) < 5", "type-mismatch", "duration(a) < 5"),
    ('response.status == "ok"', "type-mismatch", 'response.status == "ok"'),
    ("every a has duration =~ \"x\"", "type-mismatch", "duration"),
    ("every a has name =~ 5", "type-mismatch", "5"),
    ("every a has duration contains \"x\"", "type-mismatch", "duration"),
    ("every a has name contains 5", "type-mismatch", "5"),
    ("every a has error < true", "type-mismatch", "error < true"),
    ('"a" + 1 == 1', "type-mismatch", '"a" + 1'),
    ("duration(a) * 5ms < 1s", "type-mismatch", "duration(a) * 5ms"),
    ("env(1) == \"x\"", "type-mismatch", "1"),
    ("sum(values(a, name)) == 1", "type-mismatch", "values(a, name)"),
    ("duration(max(duration(a))) < 1s", "type-mismatch", "max(duration(a))"),
    ("every a has nonsense == 1", "unknown-field", "nonsense"),
    ("response.statu == 1", "unknown-field", "response.statu"),
    ("response.status.code == 1", "unknown-field", "response.status.code"),
    ("two.response.status == 1", "unknown-name", "two.response.status"),
    ("nonsense == 1", "unknown-name", "nonsense"),
    ('response.body == "{nonsense}"', "unknown-name", "nonsense"),
    ("p95(duration(a)) <= baseline * 1.1", "no-baseline", "baseline"),
    ("contains(a) == 1", "unknown-function", "contains"),
    ("len() == 1", "arguments", "len()"),
    ("count(a, b) == 1", "arguments", "count(a, b)"),
    ("p(duration(a)) < 1s", "arguments", "p(duration(a))"),
    ("max(duration(a), 1ms) < 1s", "arguments", "max(duration(a), 1ms)"),
    ("p(0, duration(a)) < 1s", "out-of-range", "0"),
    ("response.status in 300..200", "out-of-range", "300..200"),
    ("error_rate(a) < 1% with confidence 100%", "out-of-range", "100%"),
    ("count(5) == 1", "not-a-selection", "5"),
    ("attempts(a) == 1", "not-a-call", "a"),
    ("retry a { recovered }", "not-a-call", "a"),
    ("lag(a -> b) < 1s", "not-a-message", "a -> b"),
    ("max(5) == 1", "not-many", "5"),
    ("max(max(duration(a))) < 1s", "not-many", "max(duration(a))"),
    ("max(response.json.a) == 1", "not-many", "response.json.a"),
    ("duration(a) < duration(b)", "two-bags", "duration(a) < duration(b)"),
    ("duration(a) + duration(b) < 1s", "two-bags", "duration(a) + duration(b)"),
    ("every a has http.time < 5ms", "no-unit", "http.time < 5ms"),
    ('every a has name =~ "("', "bad-pattern", '"("'),
    ("response.status == 1 and count(a) == 1", "not-a-claim", "response.status == 1 and count(a) == 1"),
    ("count(a)", "not-a-claim", "count(a)"),
    ("circuit a -> b { holds >= 30s }", "incomplete", "circuit a -> b { holds >= 30s }"),
    ("count(a) < 1 with confidence 95%", "not-an-estimate", "count(a) < 1"),
    # Regressions: claims that passed the check and then failed to compile.
    ("json(values(a, span.n)) == 1", "type-mismatch", "values(a, span.n)"),
    ("len(values(a, span.n)) == 1", "type-mismatch", "values(a, span.n)"),
    ("lower(duration(a)) == 1", "type-mismatch", "duration(a)"),
    ("len(5) == 1", "type-mismatch", "5"),
    ("len(1d) == 1", "type-mismatch", "1d"),
    ("some a has env(span.n) == 1", "misplaced", "span.n"),
    ("some a has env(name) == name", "misplaced", "name"),
    ('some a has scope.name * 0.5pp < "a*"', "type-mismatch", 'scope.name * 0.5pp < "a*"'),
    ("p(99.9, values(a, span.n)) <= values(a, service)", "type-mismatch",
     "p(99.9, values(a, span.n)) <= values(a, service)"),
    ("99999999999999999999% * duration(a) < 5ms", "out-of-range", "99999999999999999999%"),
    ("duration(a) < 293000000000000000d", "out-of-range", "293000000000000000d"),
    ("(count(a) == 1) == true", "not-a-claim", "count(a) == 1"),
    ("(1 == 1) == true", "not-a-claim", "1 == 1"),
    ("(count(a) or 1) == 2", "misplaced", "count(a) or 1"),
    ("max(values(a, span.n) + count(b)) < 5", "misplaced", "count(b)"),
    ("count(traces) == 1 by service", "misplaced", "service"),
    ("max(critical(a)) < 1s by service", "misplaced", "service"),
    ("circuit a -> b { opens after 5 failures, holds >= 1s, holds >= 2s }", "duplicate", "holds >= 2s"),
    ("budget 5ms { a: 1ms, a: 2ms }", "duplicate", "a"),
    ("some a has -root != error", "type-mismatch", "-root"),
    ("fallback a -> b => c[root]", "unknown-field", "root"),
    ("count(a) in []", "incomplete", "count(a) in []"),
    ("response == 1", "syntax", "=="),
    ("count(a)==1 as5", "syntax", "as5"),
]  # fmt: skip

# file, id, text in the range
FILES = [
    ("}", "syntax", "}"),
    ("proof {\n}\n", "syntax", "{"),
    ("proof", "syntax", ""),
    ('proof "p" {\n', "unclosed", "{"),
    ("let a = \0", "syntax", "\0"),
    ("let a = 1\rlet b = 2", "syntax", "\r"),
    ("%%%", "syntax", "%"),
    ('proof "p" {\n  when GET "http://x/"\n  expect path a -> \n}', "syntax", "\n"),
    ("let a = (1\nlet b = 2\n", "syntax", "let"),
    ("let a = (1", "unclosed", "("),
    ("let a = b", "unknown-name", "b"),
    ("let a = 1 == 1", "misplaced", "1 == 1"),
    ("let a = count(x)", "misplaced", "count(x)"),
    (f'proof "p" {{ given traces since "yesterday"\n{EXPECT} }}', "bad-time", '"yesterday"'),
    (f'proof "p" {{ {EXPECT} }}', "no-traces", "response.status == 200"),
    ('proof "p" { when GET "http://x/" }', "nothing-expected", 'proof "p" { when GET "http://x/" }'),
    (PROOF.format(EXPECT) + WITH % 'GET "x"', "duplicate", WITH % 'GET "x"'),
    (WITH % 'GET "x" { json 1 json 2 }', "duplicate", "json 2"),
    (WITH % 'GET "x" { json 1 body "x" }', "duplicate", 'body "x"'),
    (PROOF.format(f"settle within 1s\n settle within 2s\n {EXPECT}"), "duplicate", "settle within 2s"),
    (WITH % 'GTE "x"', "unknown-word", 'when GTE "x"'),
    (WITH % 'get "x"', "syntax", "get"),
    (WITH % "GET x", "syntax", "x"),
    (WITH % 'GET "x" { header "TraceParent": "1" }', "misplaced", 'header "TraceParent": "1"'),
    (WITH % 'GET "x" { header "a": count(b) }', "misplaced", "count(b)"),
    (WITH % 'GET "x" { query "a": 1 == 1 }', "misplaced", "1 == 1"),
    (WITH % 'GET "x" { timeout 5 }', "type-mismatch", "5"),
    (WITH % 'POST "x" { json { a: 1 } }', "syntax", "a"),
    (WITH % 'POST "x" { json { "a": b } }', "unknown-name", "b"),
    (WITH % 'GET "x" { repeat 0 at 1/s }', "out-of-range", "0"),
    (WITH % 'GET "x" { repeat 1.5 at 1/s }', "out-of-range", "1.5"),
    (WITH % 'GET "x" { repeat 3 at 0/s }', "out-of-range", "0/s"),
    (WITH % 'GET "x" { repeat 3 at 5 }', "type-mismatch", "5"),
    (WITH % 'GET "x" { repeat 3 at 1/s repeat 3 at 1/s }', "duplicate", "repeat 3 at 1/s"),
    (WITH % 'GET "x" { repeat 3 at 1/s }\n let a = response.json.a', "many-responses", "response.json.a"),
    (WITH % 'GET "x" { repeat 3 at 1/s } as a\n when GET "y" { header "b": a.response.body }', "many-responses",
     "a.response.body"),
    (WITH % 'GET "x" { repeat 3 at 1/s }\n expect count(a) == response.json.n', "many-responses", "response.json.n"),
    (WITH % 'GET "x" { repeat 3 at 1/s }\n when GET "x"\n expect response.status == 1 in >= 99% of traces',
     "misplaced", "in >= 99% of traces"),
    (WITH % 'GET "x" { repeat 3 at 1/s }\n expect p95(response.duration) < 1s in >= 99% of traces', "misplaced",
     "in >= 99% of traces"),
    (WITH % 'GET "x" { repeat 3 at 1/s }\n expect p95(response.duration) < 1s with confidence 95%', "not-an-estimate",
     "p95(response.duration) < 1s"),
    (WITH % 'GET "x" { repeat 3 at 1/s }\n expect p95(response.duration) < 1s by service', "misplaced", "service"),
    (WITH % 'GET "x" { repeat 3 at 1/s }\n expect max(response.body) < 1s', "type-mismatch", "response.body"),
    (WITH % 'GET "x" { repeat 3 at 1/s }\n when GET "x"\n expect max(response.duration) < 1s', "not-many",
     "response.duration"),
    (WITH % 'POST "x" { file "a": "b" json 1 }', "duplicate", "json 1"),
    (WITH % 'POST "x" { file "a": "b" body "c" }', "duplicate", 'body "c"'),
    (WITH % 'POST "x" { descriptors "b" }', "misplaced", 'descriptors "b"'),
    (WITH % 'POST "x" { tls }', "misplaced", "tls"),
    (WITH % 'POST "x" { header "{nowhere}": "1" }', "unknown-name", "nowhere"),
    (WITH % 'run "x" { json 1 }', "misplaced", "json 1"),
    (WITH % 'trace "x" { repeat 3 at 1/s }', "misplaced", "repeat 3 at 1/s"),
    (WITH % 'grpc "x:1" "a.B/C" { query "a": 1 }', "misplaced", 'query "a": 1'),
    (WITH % 'grpc "x:1" "a.B/C" { json { "a": b } }', "unknown-name", "b"),
    (WITH % 'grpc "x" "a.B/C"', "bad-target", '"x"'),
    (WITH % 'grpc "http://x:1" "a.B/C"', "bad-target", '"http://x:1"'),
    (WITH % 'grpc "x:1" "a.B"', "bad-target", '"a.B"'),
    (WITH % 'publish nets "x"', "unknown-word", "nets"),
    (WITH % 'publish nats "x" { key "y" }', "misplaced", 'key "y"'),
    (WITH % 'publish rabbitmq "x" { broker count(a) }', "misplaced", "count(a)"),
    (WITH % 'GET "{nowhere}/x"', "unknown-name", "nowhere"),
    (PROOF.format(f"settle within 5\n {EXPECT}"), "type-mismatch", "5"),
    ("lett = 1", "syntax", "lett"),
    (WITH % 'GET "x"\n whenGET "x"', "syntax", "whenGET"),
    (PROOF.format("expectcount(a) == 1"), "syntax", "expectcount"),
    (f'proof "" {{ when GET "x"\n {EXPECT} }}', "incomplete", '""'),
    ("let a = 1\nlet a = 2", "duplicate", "a"),
    (PROOF.format(f"let a = 1\n let a = 2\n {EXPECT}"), "duplicate", "a"),
    ("define f(a, a) { expect count(a) == 1 }", "duplicate", "a"),
    (PROOF.format(f'when GET "x" as one\n {EXPECT}'), "duplicate", "one"),
    (WITH_BASELINE % "duration(a) <= baseline", "two-bags", "duration(a) <= baseline"),
    (WITH_BASELINE % "baseline <= baseline", "misplaced", "baseline"),
    (WITH_BASELINE % "5 <= baseline", "misplaced", "baseline"),
    (WITH_BASELINE % "count(a) in [baseline]", "misplaced", "baseline"),
    (WITH_BASELINE % "max(baseline) < 5ms", "not-many", "baseline"),
    (WITH_BASELINE % "max(duration(a)) <= baseline + 5", "type-mismatch", "baseline + 5"),
]  # fmt: skip

DEEP = {
    "parentheses": "(" * 2000 + "1" + ")" * 2000 + " == 1",
    "functions": "len(" * 2000 + '"a"' + ")" * 2000 + " == 1",
    "negations": "every a has " + "not " * 5000 + "error",
    "signs": "- " * 5000 + "1 == 1",
    "sums": " + ".join(["1"] * 5000) + " == 1",
    "steps": "path " + " -> ".join(["a"] * 5000),
    "branches": "path " + "a -> { " * 2000 + "b" + " }" * 2000,
    "conditions": "count(a" + "[event" * 2000 + "[error]" + "]" * 2000 + ") == 1",
}


def list_ids_and_texts(diagnostics: tuple[Diagnostic, ...], text: str) -> list[tuple[str, str]]:
    return [(each.id, text[each.at.start : each.at.end]) for each in diagnostics]


@pytest.mark.parametrize(("claim", "id_", "range_text"), CLAIMS)
def test_claim_problem_has_id_and_range(claim: str, id_: str, range_text: str) -> None:
    text = PROOF.format(f"expect {claim}")
    assert (id_, range_text) in list_ids_and_texts(check_file(parse_file(text, "x")), text)


@pytest.mark.parametrize(("text", "id_", "range_text"), FILES)
def test_file_problem_has_id_and_range(text: str, id_: str, range_text: str) -> None:
    assert (id_, range_text) in list_ids_and_texts(check_file(parse_file(text, "x")), text)


@pytest.mark.parametrize("shape", DEEP)
def test_deep_nesting_is_rejected(shape: str) -> None:
    (found,) = check_claim(parse_claim(DEEP[shape]))
    assert found.id == "too-deep"


def test_deeply_nested_json_is_rejected() -> None:
    (found,) = check_file(parse_file(WITH % f'POST "x" {{ json {"[" * 2000}{"]" * 2000} }}', "x"))
    assert found.id == "too-deep"


@pytest.mark.parametrize(
    "claim",
    [
        "(" * 30 + "count(a)" + ")" * 30 + " == 1",
        "every a has " + " or ".join(["error"] * 3000),
        "count(a) == " + " + ".join(["1"] * 90),
        "path " + " -> ".join(["a"] * 90),
    ],
)
def test_long_claim_is_accepted(claim: str) -> None:
    assert check_claim(parse_claim(claim)) == ()


def find_ids(source: Path) -> set[str]:
    used = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if function in ("report", "report_problem", "Diagnostic", "_make_warning"):
            used.add(node.args[0].value)
    return used


def test_every_id_has_example() -> None:
    used = set().union(*map(find_ids, SOURCES))
    assert len(used) > 25
    used -= {id_ for _, id_, _ in [*CLAIMS, *FILES]}
    assert used == {"too-deep", *WARNINGS}  # these have tests of their own


# ## Documentation of diagnostics

CATALOG = Catalog({"orders": ("POST /orders",), "payments": ("POST /charge",)}, ("http.route",))
WARNINGS = ("unseen-attribute", "unseen-operation", "unseen-service")
SECTIONS = re.findall(
    r"^## (\S+)\n\n(.+?)\n\n```(proof|claim|question|sent) (?:refused|warned)\n(.*?)\n```$",
    DOCUMENT.read_text(encoding="utf-8"),
    re.M | re.S,
)


def test_every_id_is_documented() -> None:
    used = set().union(
        *map(
            find_ids,
            [path for room in ("syntax", "check", "load", "compile") for path in QUERY_LANG.glob(f"{room}/*.py")],
        )
    )
    assert sorted(used) == [id_ for id_, _, _, _ in SECTIONS]
    assert len(re.findall(r"^## ", DOCUMENT.read_text(encoding="utf-8"), re.M)) == len(SECTIONS)


@pytest.mark.parametrize(("id_", "words", "kind", "text"), SECTIONS, ids=[section[0] for section in SECTIONS])
def test_documented_example_has_documented_id(id_: str, words: str, kind: str, text: str, tmp_path: Path) -> None:
    if kind == "question":
        assert [found.id for found in read_query(text).diagnostics] == [id_]
        return
    if kind == "sent":
        assert [found.id for found in read_submitted_proof(text, "x", allow_requests=True).diagnostics] == [id_]
        return
    (tmp_path / "broken.proof").write_text("let a =\n", encoding="utf-8")
    path = tmp_path / "example.proof"
    path.write_text(text if kind == "proof" else PROOF.format(f"expect {text}"), encoding="utf-8")
    module = load_module(path)
    warned = find_unknown_names(module, CATALOG) if id_ in WARNINGS else ()
    assert {found.id for found in (*module.diagnostics, *warned)} == {id_}
    assert len(words) > 40


# ## Odd input


@pytest.mark.parametrize(
    "word", ["path", "every", "some", "no", "in", "has", "by", "proof", "let", "retry", "before", "traces"]
)
def test_quoted_keyword_is_service(word: str) -> None:
    assert check_claim(parse_claim(f'count("{word}" "GET /") == 1')) == ()
    assert check_claim(parse_claim(f'path "{word}" -> "{word}"')) == ()


def test_quoted_name_allows_any_characters() -> None:
    assert check_claim(parse_claim('count("Größe 😀") == 1')) == ()


def test_invisible_character_is_shown_as_code_point() -> None:
    (found,) = parse_file("let a\u200b = 1", "x").diagnostics
    assert found.message == "`U+200B` is not part of the language"


def test_huge_file_parses() -> None:
    text = "".join(f'proof "{number}" {{\n  when GET "http://x/"\n  {EXPECT}\n}}\n' for number in range(1500))
    file = parse_file(text, "x")
    assert (len(file.items), check_file(file)) == (1500, ())


PIECES = [
    *'()[]{},:|*"#=<>-+/.~\n\\', "->", "->>", "~>", "=>", "..", "==", '"x"', "a", "a-b", "5ms", "1%", "proof ", "when ",
    "expect ", "path ", "count(", "every ", " has ", "not ", " in ", "span ", "response.", "let ", "retry ", "try ",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_mutated_file_yields_diagnostics_without_traceback(seed: int) -> None:
    good = PROOF.format("\n  ".join(f"expect {claim}" for claim, _, _ in CLAIMS[seed::20]) + f"\n  {EXPECT}")
    for step in range(0, len(good), 7):
        piece = PIECES[(seed + step) % len(PIECES)]
        for text in (good[:step], good[:step] + piece + good[step:], good[:step] + good[step + 3 :]):
            for found in check_file(parse_file(text, "x")):
                assert 0 <= found.at.start <= found.at.end <= len(text) + 1
                assert found.message


# ## Suggestions


def test_nearest_words_come_first_in_any_case() -> None:
    assert find_nearest("Paymets", ["orders", "payments", "payment"]) == ["payments", "payment"]
    assert suggest_names("paymets", ["payments"]) == "did you mean `payments`?"
    assert suggest_names("zzz", ["payments"]) is None
