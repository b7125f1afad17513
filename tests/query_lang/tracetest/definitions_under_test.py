"""Tracetest's definitions, as short as they can be."""

from __future__ import annotations

TEST = """\
type: Test
spec:
  name: A test
  trigger:
    type: http
    httpRequest:
      url: http://127.0.0.1:8080/
  specs:
  - selector: {selector}
    assertions:
    - {assertion}
"""
ON_TRIGGER = """'span[name="Tracetest trigger"]'"""
ON_SPAN = """'span[name="a"]'"""
OF_BODY = "attr:tracetest.response.body"
TRIGGER = """\
type: Test
spec:
  trigger:
    type: {type}
    {body}
"""
HTTP = "httpRequest:\n      url: http://127.0.0.1/\n      "


def one_spec(selector: str, assertion: str) -> str:
    return TEST.format(selector=selector, assertion=assertion)
