"""Contracts of responses: JSON Schema and OpenAPI documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from jsonschema import validators
from jsonschema.exceptions import SchemaError, best_match
from msgspec import Struct
from openapi_core import OpenAPI
from openapi_core.datatypes import RequestParameters
from openapi_core.exceptions import OpenAPIError

from spanproof.assertions.findings.verdict import Outcome, Verdict
from spanproof.assertions.triggers.http import HttpResponse
from spanproof.assertions.triggers.responses import TriggerResponse
from spanproof.query_lang.syntax import nodes as s


def judge_contract(claim: s.Contract, response: TriggerResponse, folder: Path) -> Verdict:
    """Judge a response against the document that `claim` names; its path is relative to `folder`."""
    if claim.kind == "openapi" and not isinstance(response, HttpResponse):
        return Verdict(Outcome.ERROR, "error", "`openapi` applies to HTTP responses only", claim.at, "")
    path = folder / claim.document.plain
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return Verdict(Outcome.ERROR, "error", f"{path} cannot be read: {_first_line(error)}", claim.document.at, "")
    try:
        violations = list(
            _find_openapi_violations(document, response)
            if isinstance(response, HttpResponse) and claim.kind == "openapi"
            else _find_schema_violations(document, response)
        )
    except (SchemaError, OpenAPIError, ValueError) as error:
        return Verdict(Outcome.ERROR, "error", f"{path} is not usable: {_first_line(error)}", claim.document.at, "")
    if violations:
        return Verdict(Outcome.FAIL, "contract", violations[0], claim.at, violations[0], 1)
    return Verdict(Outcome.PASS, "pass", f"conforms to {claim.document.plain}", claim.at, "", 1)


def _find_schema_violations(schema: Any, response: TriggerResponse) -> Iterator[str]:
    """Yield the most relevant violation of a JSON schema, if there is one."""
    validator = validators.validator_for(schema)
    validator.check_schema(schema)
    try:
        body = json.loads(response.body)
    except ValueError:
        yield "the response is not JSON"
        return
    violation = best_match(validator(schema).iter_errors(body))
    if violation is not None:
        yield f"`{violation.json_path}`: {violation.message}"


def _find_openapi_violations(document: Any, response: HttpResponse) -> Iterator[str]:
    """Yield the violation of an OpenAPI document, if there is one. Of its servers, only the paths count."""
    servers = [{"url": urlsplit(server.get("url", "/")).path or "/"} for server in document.get("servers", [])]
    api = OpenAPI.from_dict({**document, "servers": servers or [{"url": "/"}]})
    try:
        api.validate_response(
            _OpenapiRequest.from_http_response(response), _OpenapiResponse.from_http_response(response)
        )
    except OpenAPIError as error:
        cause = error.__cause__
        details = [str(each.message) for each in getattr(cause, "schema_errors", [])]
        yield f"the body: {details[0]}" if details else _first_line(error)


class _OpenapiRequest(Struct):
    """The request, with the attributes that openapi-core reads."""

    host_url: str
    path: str
    method: str
    parameters: RequestParameters
    content_type: str
    body: bytes | None

    @classmethod
    def from_http_response(cls, response: HttpResponse) -> _OpenapiRequest:
        request = response.request
        url = request.url
        return cls(
            f"{url.scheme}://{url.netloc.decode('ascii')}", url.path, request.method.lower(), RequestParameters(),
            request.headers.get("content-type", ""), None,
        )  # fmt: skip


class _OpenapiResponse(Struct):
    """The response, with the attributes that openapi-core reads."""

    status_code: int
    headers: dict[str, str]
    content_type: str
    data: bytes

    @classmethod
    def from_http_response(cls, response: HttpResponse) -> _OpenapiResponse:
        headers = dict(response.headers)
        return cls(response.status, headers, headers.get("content-type", ""), response.body.encode())


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
