"""Minimal Tracetest definitions."""

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
TRIGGER_SELECTOR = """'span[name="Tracetest trigger"]'"""
SPAN_SELECTOR = """'span[name="a"]'"""
BODY_ATTRIBUTE = "attr:tracetest.response.body"
TRIGGER = """\
type: Test
spec:
  trigger:
    type: {type}
    {body}
"""
HTTP = "httpRequest:\n      url: http://127.0.0.1/\n      "


def make_test(selector: str, assertion: str) -> str:
    return TEST.format(selector=selector, assertion=assertion)
