"""Redaction masks matching values and leaves all others unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from spanproof.collector.otlp.decoder import Decoder, ExportResult
from spanproof.collector.otlp.redaction import MASK, Redaction, make_redaction
from spanproof.collector.storage.store import Store
from spanproof.tests.collector.exported import export_request

TRACE_ID = "01" * 16
MASKED = AnyValue(string_value=MASK)
CARD = r"\b4[0-9]{15}\b"
NUMBER = 4111111111111111


def text(value: str) -> AnyValue:
    return AnyValue(string_value=value)


def array(*values: AnyValue) -> AnyValue:
    return AnyValue(array_value=ArrayValue(values=values))


def mapping(**pairs: AnyValue) -> AnyValue:
    return AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key=key, value=pairs[key]) for key in pairs]))


def store_redacted(redaction: Redaction, request: ExportTraceServiceRequest):
    """Store a request and return its stored resource spans."""
    with Store.open() as store:
        decoded = Decoder(redaction).decode([request.SerializeToString()])
        assert [type(outcome) for outcome in decoded.outcomes] == [ExportResult]
        store.append(decoded)
        return export_request(store, TRACE_ID).resource_spans[0]


def store_redacted_attributes(redaction: Redaction, make_request, **attributes: AnyValue) -> dict[str, AnyValue]:
    request = make_request(attributes=tuple(KeyValue(key=key, value=value) for key, value in attributes.items()))
    (span,) = store_redacted(redaction, request).scope_spans[0].spans
    return {each.key: each.value for each in span.attributes}


@pytest.mark.parametrize(
    ("rule", "masked_keys"),
    [
        ("email", {"email"}),
        ("EMAIL", {"email"}),
        ("user.*", {"user.email", "user.name"}),
        ("*.email", {"user.email"}),
        ("*e*m*", {"email", "user.email", "user.name"}),
        ("user.ema.l", set()),
        ("*", {"email", "user.email", "user.name", "other"}),
    ],
)
def test_key_rule_masks_matching_keys(make_request, rule: str, masked_keys: set[str]) -> None:
    keys = ("email", "user.email", "user.name", "other")
    kept = store_redacted_attributes(
        Redaction(keys=(rule,)), make_request, **dict.fromkeys(keys, AnyValue(int_value=5))
    )
    assert kept == {key: MASKED if key in masked_keys else AnyValue(int_value=5) for key in keys}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (text(f"card {NUMBER}, {NUMBER}!"), text(f"card {MASK}, {MASK}!")),
        (text("no card"), text("no card")),
        (text(f"\x01 {NUMBER}"), text(f"\x01 {MASK}")),
        (AnyValue(int_value=NUMBER), MASKED),
        (AnyValue(int_value=5), AnyValue(int_value=5)),
        (AnyValue(double_value=0.5), AnyValue(double_value=0.5)),
        (AnyValue(bool_value=True), AnyValue(bool_value=True)),
        (AnyValue(bytes_value=b"\xff %d" % NUMBER), MASKED),
        (AnyValue(bytes_value=b"\xff"), AnyValue(bytes_value=b"\xff")),
        (AnyValue(), AnyValue()),
        (text(""), text("")),
        (
            array(text(f"x {NUMBER}"), AnyValue(int_value=NUMBER), AnyValue(int_value=1), AnyValue(bool_value=False)),
            array(text(f"x {MASK}"), MASKED, AnyValue(int_value=1), AnyValue(bool_value=False)),
        ),
        (
            mapping(a=mapping(b=array(text(str(NUMBER)), AnyValue())), c=AnyValue(bytes_value=b"%d" % NUMBER)),
            mapping(a=mapping(b=array(MASKED, AnyValue())), c=MASKED),
        ),
    ],
)
def test_value_rule_masks_matches_in_any_value(make_request, value: AnyValue, kept: AnyValue) -> None:
    assert store_redacted_attributes(Redaction(values=(CARD, "never")), make_request, it=value, other=text("x")) == {
        "it": kept,
        "other": text("x"),
    }


@pytest.mark.parametrize("rule", ["email", "user.email", "user.inner.email", "*.EMAIL"])
def test_key_rule_matches_nested_keys(make_request, rule: str) -> None:
    inner = mapping(email=text("a@b"), name=text("n"))
    value = mapping(email=text("a@b"), inner=inner, list=array(inner))
    kept = store_redacted_attributes(Redaction(keys=(rule,)), make_request, user=value)["user"]
    masked = kept.SerializeToString().count(MASK.encode())
    assert masked == {"email": 3, "user.email": 1, "user.inner.email": 1, "*.EMAIL": 3}[rule]
    assert kept.SerializeToString().count(b"a@b") == 3 - masked


def test_rules_apply_to_every_text(make_request) -> None:
    secret = "hunter2"  # noqa: S105 (not a real secret)
    request = make_request()
    (resource_spans,) = request.resource_spans
    (scope_spans,) = resource_spans.scope_spans
    (span,) = scope_spans.spans
    resource_spans.resource.attributes.add(key="a").value.string_value = secret
    scope_spans.scope.attributes.add(key="a").value.string_value = secret
    span.attributes.add(key="a").value.string_value = secret
    span.events.add(name=f"event {secret}").attributes.add(key="a").value.string_value = secret
    span.links.add(trace_id=b"\x02" * 16, span_id=b"\x02" * 8).attributes.add(key="a").value.string_value = secret
    span.name = f"GET /{secret}"
    span.status.message = f"{secret} is wrong"
    kept = store_redacted(Redaction(values=(secret,)), request)
    assert kept.SerializeToString().count(MASK.encode()) == 8
    assert secret.encode() not in kept.SerializeToString()
    (kept_span,) = kept.scope_spans[0].spans
    assert (kept_span.name, kept_span.status.message) == (f"GET /{MASK}", f"{MASK} is wrong")

    by_key = store_redacted(Redaction(keys=("a",)), request)
    assert by_key.SerializeToString().count(MASK.encode()) == 5
    assert by_key.scope_spans[0].spans[0].name == f"GET /{secret}"


def test_masked_service_is_masked_in_all_columns(make_request) -> None:
    for redaction in (Redaction(keys=("service.name",)), Redaction(values=("orders",))):
        decoded = Decoder(redaction).decode([make_request().SerializeToString()])
        assert decoded.spans["service"].to_pylist() == decoded.resources["service"].to_pylist() == [MASK]


def test_resources_with_different_masked_values_are_equal(make_request) -> None:
    requests = [make_request(), make_request()]
    for number, request in enumerate(requests):
        request.resource_spans[0].resource.attributes.add(key="secret").value.int_value = number
    bodies = [request.SerializeToString() for request in requests]
    # not even a hash of a masked value is stored
    assert len(set(Decoder(Redaction(keys=("secret",))).decode(bodies).spans["resource_key"].to_pylist())) == 1
    assert len(set(Decoder().decode(bodies).spans["resource_key"].to_pylist())) == 2


def test_many_spans_are_masked(make_request) -> None:
    request = make_request(500)
    for number, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
        for position in range(number % 4):
            value = span.attributes.add(key=f"k{position}").value
            value.string_value = str(NUMBER) if (number + position) % 3 == 0 else "fine"
    kept = store_redacted(Redaction(keys=("k2",), values=(CARD,)), request)
    for number, span in enumerate(kept.scope_spans[0].spans):
        expected = [MASK if position == 2 or (number + position) % 3 == 0 else "fine" for position in range(number % 4)]
        assert [each.value.string_value for each in span.attributes] == expected


def test_rules_from_file_extend_given_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text("# personal data\n\nkey user.email\n  value a b#c  \nkey x y\n")
    assert make_redaction(["k"], ["v"], path) == Redaction(("k", "user.email", "x y"), ("v", "a b#c"))


@pytest.mark.parametrize(
    ("keys", "values", "problem"),
    [
        ([""], [], "a redaction rule is empty"),
        ([], [""], "a redaction rule is empty"),
        ([], ["("], "'(' is not a regular expression (RE2): missing ): ("),
        ([], ["(?=x)"], "'(?=x)' is not a regular expression (RE2): invalid perl operator: (?="),
        ([], ["x*"], "'x*' also matches the empty text; it would mask everything"),
    ],
)
def test_invalid_rule_is_rejected(keys: list[str], values: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        make_redaction(keys, values, None)


def test_values_that_are_missing_stay_missing(make_request) -> None:
    attributes = (
        KeyValue(key="none", value=AnyValue()),
        KeyValue(key="nan", value=AnyValue(double_value=float("nan"))),
        KeyValue(key="card", value=text(str(NUMBER))),
        KeyValue(key="list", value=array(AnyValue(), text(str(NUMBER)))),
        KeyValue(key="secret", value=AnyValue()),
    )
    stored = store_redacted(Redaction(("secret",), (CARD,)), make_request(attributes=attributes))
    values = {each.key: each.value for each in stored.scope_spans[0].spans[0].attributes}
    assert values["none"] == AnyValue()
    assert values["nan"].double_value != values["nan"].double_value
    assert values["card"] == values["secret"] == MASKED
    assert values["list"] == array(AnyValue(), MASKED)
