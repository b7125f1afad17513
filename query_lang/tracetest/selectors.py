"""Selectors of spans, as Tracetest writes them: ``span[tracetest.span.type="http" name="GET /"]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from spanproof.query_lang.syntax import Source
from spanproof.query_lang.tracetest.constructs import malformed, refuse
from spanproof.query_lang.tracetest.tokens import Place, locate_tokens, split_tokens

TRIGGER: Final = "Tracetest trigger"
# what Tracetest knows of the span that it makes itself
OF_TRIGGER: Final = {"name": TRIGGER, "tracetest.span.name": TRIGGER, "tracetest.span.type": "general"}
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<text>\"(?:\\.|[^\"\\])*\")|(?P<number>-?\d+(?:\.\d+)?)|(?P<pseudo>:\s*\w+)"
    r"|(?P<word>[A-Za-z_]\w*(?:\.\w+)*)|(?P<mark>[\[\](),=]))"
)


@dataclass(frozen=True, slots=True)
class Filter:
    """``name = value`` or ``name contains value``. Tracetest compares texts."""

    name: str
    operator: Literal["=", "contains"]
    value: str
    is_number: bool
    at: Source

    def holds_for(self, text: str) -> bool:
        """Tell whether a text satisfies it."""
        return text == self.value if self.operator == "=" else self.value in text


@dataclass(frozen=True, slots=True)
class SpanSelector:
    """``span[…]``: every span that satisfies all filters; without any, every span."""

    filters: tuple[Filter, ...]
    at: Source

    @property
    def takes_trigger(self) -> bool:
        """Whether the span that Tracetest makes for its own request is one of them."""
        return all(each.holds_for(OF_TRIGGER.get(each.name, "")) for each in self.filters)

    @property
    def takes_others(self) -> bool:
        """Whether spans of services may be among them."""
        return not any(each.name == "name" and each.operator == "=" and each.value == TRIGGER for each in self.filters)


def read_selector(text: str, place: Place) -> tuple[SpanSelector, ...]:
    """Read a selector; ``,`` joins several. Raises Refused."""
    reader = _Reader(text, place)
    if reader.peek() is None:
        return (SpanSelector((), place(0, len(text))),)
    found = [reader.selector()]
    while reader.take(","):
        found.append(reader.selector())
    if reader.peek() is not None:
        raise reader.unexpected()
    return tuple(found)


class _Reader:
    def __init__(self, text: str, place: Place) -> None:
        self.text, self.place = text, place
        self.tokens = split_tokens(text, _TOKEN, place, "a selector")
        self.next = 0

    def peek(self) -> re.Match[str] | None:
        return self.tokens[self.next] if self.next < len(self.tokens) else None

    def take(self, text: str) -> re.Match[str] | None:
        """Take the next token if it reads so."""
        token = self.peek()
        if token is None or token.group().strip() != text:
            return None
        self.next += 1
        return token

    def unexpected(self) -> Exception:
        token = self.peek()
        if token is None:
            return malformed("the selector ends here", self.place(len(self.text.rstrip()) - 1, len(self.text.rstrip())))
        return malformed(f"`{token.group().strip()}` is not expected here", self.where(token))

    def where(self, token: re.Match[str]) -> Source:
        return locate_tokens(token, token, self.place)

    def selector(self) -> SpanSelector:
        begin = self.next
        for word in ("span", "["):
            if not self.take(word):
                raise self.unexpected()
        filters: list[Filter] = []
        while not self.take("]"):
            filters.append(self.filter())
            self.take(",")
        self._refuse_what_follows()
        return SpanSelector(tuple(filters), locate_tokens(self.tokens[begin], self.tokens[self.next - 1], self.place))

    def _refuse_what_follows(self) -> None:
        after = self.peek()
        if after is None:
            return
        if after["pseudo"]:
            name = ":" + after["pseudo"].removeprefix(":").strip()
            if name not in (":first", ":last", ":nth_child"):
                raise malformed(f"`{name}` is no pseudo-class", self.where(after))
            raise refuse(name, self.where(after))
        if after["word"] == "span":
            raise refuse("span[…] span[…]", self.where(after))

    def filter(self) -> Filter:
        name = self.peek()
        if name is None or not name["word"]:
            raise self.unexpected()
        self.next += 1
        operator = "=" if self.take("=") else "contains" if self.take("contains") else None
        value = self.peek()
        if operator is None or value is None:
            raise self.unexpected()
        at = self.place(name.end() - len(name.group().lstrip()), value.end())
        self.next += 1
        if value["number"]:
            if "." in value["number"]:
                raise refuse("decimal in a selector", self.where(value), value["number"])
            return Filter(name["word"], operator, value["number"], True, at)  # type: ignore[arg-type]  # one of two
        if value["word"] in ("true", "false"):
            return Filter(name["word"], operator, value["word"], False, at)  # type: ignore[arg-type]  # one of two
        if not value["text"]:
            self.next -= 1
            raise self.unexpected()
        text = re.sub(r"\\(.)", r"\1", value["text"][1:-1])
        if "${" in text:
            raise refuse("${…} in a selector", self.where(value))
        return Filter(name["word"], operator, text, False, at)  # type: ignore[arg-type]  # one of two
