"""Responses judged against JSON Schema and OpenAPI documents."""

import json
from pathlib import Path

import httpx
import pytest

from spanproof.assertions.judge.contracts import judge_contract
from spanproof.assertions.triggers.http import HttpResponse
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import parse_claim

SCHEMA = {
    "type": "object",
    "required": ["order"],
    "properties": {"order": {"type": "object", "properties": {"total": {"type": "integer"}}}},
}
API = """
openapi: 3.1.0
info: {title: shop, version: "1"}
servers: [{url: "https://shop.example/v1"}]
paths:
  /orders/{id}:
    get:
      parameters: [{name: id, in: path, required: true, schema: {type: string}}]
      responses:
        "200":
          description: the order
          content: {application/json: {schema: {type: object, required: [id], properties: {id: {type: string}}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "order.schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "api.yaml").write_text(API)
    (tmp_path / "broken.json").write_text('{"type": 3}')
    return tmp_path


def claim(text: str) -> s.Contract:
    expectation = parse_claim(text).expectation
    assert expectation is not None
    assert isinstance(expectation.claim, s.Contract)
    return expectation.claim


def respond(body: str, status: int = 200, path: str = "/v1/orders/3") -> HttpResponse:
    request = httpx.Request("GET", f"http://127.0.0.1:8080{path}")
    return HttpResponse(status, body, 1, request, httpx.Headers({"content-type": "application/json"}))


@pytest.mark.parametrize(
    ("body", "outcome", "message"),
    [
        ('{"order": {"total": 1}}', "pass", "order.schema.json"),
        ('{"order": {"total": "x"}}', "fail", "`$.order.total`: 'x' is not of type 'integer'"),
        ("{}", "fail", "'order' is a required property"),
        ("no", "fail", "not JSON"),
    ],
)
def test_schema_violation_names_position(folder: Path, body: str, outcome: str, message: str) -> None:
    verdict = judge_contract(claim('response matches schema "order.schema.json"'), respond(body), folder)
    assert verdict.outcome == outcome
    assert message in verdict.reason


@pytest.mark.parametrize(
    ("response", "outcome", "message"),
    [
        (respond('{"id": "a"}'), "pass", "api.yaml"),
        (respond('{"id": 1}'), "fail", "1 is not of type 'string'"),
        (respond("{}", 404), "fail", "404"),
        (respond("{}", path="/v1/carts"), "fail", "/v1/carts"),
    ],
)
def test_openapi_ignores_host(folder: Path, response: HttpResponse, outcome: str, message: str) -> None:
    verdict = judge_contract(claim('response conforms to openapi "api.yaml"'), response, folder)
    assert verdict.outcome == outcome
    assert message in verdict.reason


@pytest.mark.parametrize("name", ["broken.json", "absent.json"])
def test_unusable_document_is_error(folder: Path, name: str) -> None:
    verdict = judge_contract(claim(f'response matches schema "{name}"'), respond("{}"), folder)
    assert verdict.outcome == "error"
    assert name in verdict.reason
