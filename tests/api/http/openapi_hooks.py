"""Facts that the OpenAPI document cannot express for Schemathesis: text formats and excluded combinations."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from spanproof.api.tempo.traceql_fields import INTRINSICS
from spanproof.query_lang.syntax.instants import parse_instant

_words = st.from_regex(r"[a-z][a-z.]{0,9}", fullmatch=True)
_texts = st.text(st.characters(exclude_characters='\\"', exclude_categories=("Cc", "Cs")), max_size=9).map(
    lambda text: f'"{text}"'
)
_fields = st.tuples(st.sampled_from(["", "span", "resource"]), _words).map(".".join)
_numbers = st.integers(-(2**62), 2**62).map(str) | st.floats(-1e9, 1e9).map(str)
_comparisons = st.one_of(
    st.tuples(_fields, st.sampled_from(["=", "!="]), st.one_of(_texts, _numbers, st.sampled_from(["true", "nil"]))),
    st.tuples(_fields, st.sampled_from([">", ">=", "<", "<="]), _numbers),
    st.tuples(st.sampled_from(["name", "rootName", "span:statusMessage"]), st.sampled_from(["=", "!="]), _texts),
    st.tuples(st.sampled_from(["duration", "traceDuration"]), st.just(">"), st.sampled_from(["0s", "1h2.5m", "3µs"])),
    st.sampled_from([each for each in INTRINSICS if "status" in each and "Message" not in each]).map(
        lambda name: (name, "!=", "error")
    ),
).map(" ".join)
_expressions = st.recursive(
    _comparisons,
    lambda inner: st.tuples(inner, st.sampled_from([" && ", " || "]), inner).map(lambda parts: f"({''.join(parts)})"),
    max_leaves=5,
)
schemathesis.openapi.format("traceql", st.just("") | _expressions.map(lambda text: f"{{ {text} }}"))
schemathesis.openapi.format("logfmt", st.lists(st.tuples(_words, _texts).map("=".join), max_size=4).map(" ".join))

_numeric_expressions = st.sampled_from(
    ["count(gateway)", "p95(duration(gateway))", "error_rate(gateway -> payments)", "rate(*)", "max(duration(*)) - 5ms"]
)
_windows = st.sampled_from(["over last 1h", 'since "2026-01-31T12:00:00Z"', "from gateway over last 365d where error"])
_queries = st.tuples(
    _numeric_expressions,
    st.sampled_from(["", "by resource.service.version", "by http.route"]),
    _windows,
    st.sampled_from(["", "every 1m"]),
).map(" ".join)
_claims = st.sampled_from(
    ["count(traces) >= 1", "some gateway", "no gateway -> payments", "p95(duration(*)) < 1s with confidence 95%"]
)
_proofs = st.lists(_claims, min_size=1, max_size=4).map(
    lambda claims: "\n".join(
        ['proof "it" {', ' given traces since "2026-01-31T12:00:00Z"', *(f" expect {each}" for each in claims), "}"]
    )
)
schemathesis.openapi.format("question", _queries)
schemathesis.openapi.format("proof", _proofs)


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Drop combinations of parameters that are valid only alone; the tests of each operation cover their rejection."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return True
    query = case.query or {}
    if "cursor" in query:  # only the server can create a cursor
        return False
    if "last" in query and not query.keys().isdisjoint({"since", "until"}):
        return False
    if "since" in query and "until" in query:
        since_ns, until_ns = parse_instant(query["since"]), parse_instant(query["until"])
        return since_ns is not None and until_ns is not None and since_ns <= until_ns
    return True


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: object) -> object:
    """Leave out variables: the generated proofs read none, and a variable that no proof reads is rejected."""
    return {name: value for name, value in body.items() if name != "variables"} if isinstance(body, dict) else body
