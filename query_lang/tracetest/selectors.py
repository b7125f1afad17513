"""Parser of Tracetest's span selectors: ``span[tracetest.span.type="http" name="GET /"]``.

A selector may be followed by another one, for spans inside those of the first, and by ``:first`` or ``:last``.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from spanproof.query_lang.syntax.nodes import Pick, TextRange
from spanproof.query_lang.syntax.vocabulary import PICKS
from spanproof.query_lang.tracetest.tokens import Locator, locate_tokens, split_tokens
from spanproof.query_lang.tracetest.unsupported import make_malformed_error, make_no_equivalent_error

TRIGGER_SPAN_NAME: Final = "Tracetest trigger"
# attributes of the span that Tracetest creates for its own request
TRIGGER_SPAN_ATTRIBUTES: Final = {
    "name": TRIGGER_SPAN_NAME,
    "tracetest.span.name": TRIGGER_SPAN_NAME,
    "tracetest.span.type": "general",
}
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<text>\"(?:\\.|[^\"\\])*\")|(?P<number>-?\d+(?:\.\d+)?)|(?P<pseudo>:\s*\w+)"
    r"|(?P<word>[A-Za-z_]\w*(?:\.\w+)*)|(?P<mark>[\[\](),=]))"
)


class AttributeFilter(Struct, frozen=True):
    """Filter ``name = value`` or ``name contains value``. Tracetest compares texts."""

    name: str
    operator: Literal["=", "contains"]
    value: str
    is_number: bool
    at: TextRange

    def is_match(self, text: str) -> bool:
        """Return whether a text satisfies the filter."""
        return text == self.value if self.operator == "=" else self.value in text


class SpanSelector(Struct, frozen=True):
    """Selector ``span[…]`` of the spans that satisfy all filters. Without filters it selects every span.

    The spans are those of the selector `outer`, or below them.
    """

    filters: tuple[AttributeFilter, ...]
    at: TextRange
    outer: SpanSelector | None = None
    pick: Pick | None = None

    @property
    def matches_trigger_span(self) -> bool:
        """Whether the span that Tracetest creates for its own request is selected: the root of the trace."""
        is_match = all(filter_.is_match(TRIGGER_SPAN_ATTRIBUTES.get(filter_.name, "")) for filter_ in self.filters)
        return is_match and (self.outer is None or self.outer.matches_trigger_span) and self.pick != "last"

    @property
    def matches_service_spans(self) -> bool:
        """Whether spans of services can be selected."""
        is_trigger = any(
            filter_.name == "name" and filter_.operator == "=" and filter_.value == TRIGGER_SPAN_NAME
            for filter_ in self.filters
        )
        return not is_trigger and not (self.pick == "first" and self.matches_trigger_span)


def read_selector(text: str, locate: Locator) -> tuple[SpanSelector, ...]:
    """Read selectors that are separated by ``,``. Raises DiagnosticError."""
    parser = _SelectorParser(text, locate)
    if parser.peek() is None:
        return (SpanSelector((), locate(0, len(text))),)
    selectors = [parser.parse_selector()]
    while parser.take_token(","):
        selectors.append(parser.parse_selector())
    if parser.peek() is not None:
        raise parser.make_unexpected_error()
    return tuple(selectors)


class _SelectorParser:
    def __init__(self, text: str, locate: Locator) -> None:
        self.text, self.locate = text, locate
        self.tokens = split_tokens(text, _TOKEN, locate, "a selector")
        self.next = 0

    def peek(self) -> re.Match[str] | None:
        return self.tokens[self.next] if self.next < len(self.tokens) else None

    def take_token(self, text: str) -> re.Match[str] | None:
        """Consume the next token if it is `text`."""
        token = self.peek()
        if token is None or token.group().strip() != text:
            return None
        self.next += 1
        return token

    def make_unexpected_error(self) -> Exception:
        token = self.peek()
        if token is None:
            return make_malformed_error(
                "the selector ends here", self.locate(len(self.text.rstrip()) - 1, len(self.text.rstrip()))
            )
        return make_malformed_error(f"`{token.group().strip()}` is not expected here", self.locate_token(token))

    def locate_token(self, token: re.Match[str]) -> TextRange:
        return locate_tokens(token, token, self.locate)

    def parse_selector(self) -> SpanSelector:
        """Parse selectors, each inside the one before, and the position in the last one."""
        selector = self._parse_span()
        while (token := self.peek()) is not None and (token["word"] == "span" or token["pseudo"]):
            if selector.pick is not None:
                raise make_no_equivalent_error("position and other selectors", self.locate_token(token))
            if token["word"] == "span":
                selector = replace(self._parse_span(), outer=selector)
            else:
                selector = replace(selector, pick=self._parse_pick(selector))
        return selector

    def _parse_pick(self, selector: SpanSelector) -> Pick:
        token = self.tokens[self.next]
        name = token["pseudo"].removeprefix(":").strip()
        if name == "nth_child":
            raise make_no_equivalent_error(":nth_child", self.locate_token(token))
        if name not in PICKS:
            raise make_malformed_error(f"`:{name}` is not a pseudo-class", self.locate_token(token))
        if selector.outer is not None:
            raise make_no_equivalent_error("position and other selectors", self.locate_token(token))
        self.next += 1
        return "first" if name == "first" else "last"

    def _parse_span(self) -> SpanSelector:
        begin = self.next
        for word in ("span", "["):
            if not self.take_token(word):
                raise self.make_unexpected_error()
        filters: list[AttributeFilter] = []
        while not self.take_token("]"):
            filters.append(self.parse_filter())
            self.take_token(",")
        return SpanSelector(tuple(filters), locate_tokens(self.tokens[begin], self.tokens[self.next - 1], self.locate))

    def parse_filter(self) -> AttributeFilter:
        name = self.peek()
        if name is None or not name["word"]:
            raise self.make_unexpected_error()
        self.next += 1
        operator = "=" if self.take_token("=") else "contains" if self.take_token("contains") else None
        value = self.peek()
        if operator is None or value is None:
            raise self.make_unexpected_error()
        at = self.locate(name.end() - len(name.group().lstrip()), value.end())
        self.next += 1
        if value["number"]:
            if "." in value["number"]:
                raise make_no_equivalent_error("decimal in a selector", self.locate_token(value), value["number"])
            return AttributeFilter(name["word"], operator, value["number"], True, at)  # type: ignore[arg-type]  # one of two
        if value["word"] in ("true", "false"):
            return AttributeFilter(name["word"], operator, value["word"], False, at)  # type: ignore[arg-type]  # one of two
        if not value["text"]:
            self.next -= 1
            raise self.make_unexpected_error()
        text = re.sub(r"\\(.)", r"\1", value["text"][1:-1])
        if "${" in text:
            raise make_no_equivalent_error("${…} in a selector", self.locate_token(value))
        return AttributeFilter(name["word"], operator, text, False, at)  # type: ignore[arg-type]  # one of two
