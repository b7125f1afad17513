"""Text to tree. What cannot be read becomes a diagnostic that says what was expected."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from lark import Lark, ParseTree, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError
from lark.lexer import PatternStr

from spanproof.query_lang.syntax import nodes as syntax
from spanproof.query_lang.syntax.diagnostics import Diagnostic, suggest_names
from spanproof.query_lang.syntax.literals import DiagnosticError
from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.syntax.transformer import ProofTransformer
from spanproof.query_lang.syntax.vocabulary import RESPONSE_PARTS

MAX_DEPTH: Final = 100  # of rules, of which a pair of parentheses takes three
CLOSING: Final = {"LPAR": ")", "LSQB": "]", "LBRACE": "}"}
OPENING: Final = {"RPAR": "LPAR", "RSQB": "LSQB", "RBRACE": "LBRACE"}
STATEMENTS: Final = ("let", "when", "settle", "given", "compare", "apply", "before", "after", "expect")
ITEMS: Final = ("let", "define", "proof", "use", "before", "after")
MAX_DIAGNOSTICS: Final = 20


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A parsed file. With ``diagnostics``, ``items`` are what could be read all the same."""

    path: str
    text: str
    items: tuple[syntax.Item, ...]
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class ParsedClaim:
    """A claim that was parsed by itself, as in a ``.case`` file."""

    text: str
    expectation: syntax.Expectation | None
    diagnostics: tuple[Diagnostic, ...]


class ProofSyntaxError(Exception):
    """The text cannot be read; carries the diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def parse_file(text: str, path: str) -> ParsedFile:
    """Parse a proof file. A line that cannot be read is left out, so that those after it are looked at too."""
    found: list[Diagnostic] = []
    rest = text
    while len(found) < MAX_DIAGNOSTICS:
        try:
            return ParsedFile(path, text, _parse(rest, "start"), tuple(found))
        except ProofSyntaxError as problem:
            found.append(problem.diagnostic)
            shorter = _blank_line(rest, problem.diagnostic.at.start)
            if shorter is None:
                break
            rest = shorter
    return ParsedFile(path, text, (), tuple(found))


def _blank_line(text: str, offset: int) -> str | None:
    """Blank the line at `offset`; None where that would take a bracket from its counterpart."""
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    end = len(text) if end < 0 else end
    line = text[start:end]
    marks = Counter(re.sub(r'"(?:[^"\\]|\\.)*"|#.*', "", line))
    if not line.strip() or any(marks[opening] != marks[closing] for opening, closing in ("()", "[]", "{}")):
        return None
    return text[:start] + " " * len(line) + text[end:]


def parse_claim(text: str) -> ParsedClaim:
    """Parse one claim with its suffixes, without the word ``expect``."""
    try:
        expectation = _parse(text, "expectation")
    except ProofSyntaxError as problem:
        return ParsedClaim(text, None, (problem.diagnostic,))
    return ParsedClaim(text, expectation, ())


def parse_query(text: str) -> syntax.MetricQuery:
    """Parse a question; its line ends are spaces. Raises SyntaxProblem."""
    question: syntax.MetricQuery = _parse(re.sub(r"[\r\n]", " ", text), "question")
    return question


def _parse(text: str, start: str):  # type: ignore[no-untyped-def]  # what comes back depends on `start`
    try:
        tree = _make_parser().parse(text, start=start)
        _check_depth(tree)
        return ProofTransformer().transform(tree)
    except UnexpectedInput as error:
        raise ProofSyntaxError(_make_diagnostic(error, text)) from None
    except VisitError as error:
        if isinstance(error.orig_exc, DiagnosticError):
            raise ProofSyntaxError(error.orig_exc.diagnostic) from None
        raise


def _check_depth(tree: ParseTree) -> None:
    """Refuse what is nested so deeply that reading it would take more stack than Python gives."""
    below = [(tree, 0)]
    while below:
        node, depth = below.pop()
        if depth > MAX_DEPTH:
            at = TextRange(node.meta.start_pos, node.meta.end_pos)
            raise ProofSyntaxError(
                Diagnostic("too-deep", "this is nested too deeply", at, "name parts of it with `let`")
            )
        below += [(child, depth + 1) for child in node.children if isinstance(child, Tree)]


def list_keywords() -> tuple[str, ...]:
    """Return the words that mean something to the grammar, sorted."""
    found = {
        match for terminal in _make_parser().terminals for match in re.findall(r"^[a-z]+", str(terminal.pattern.value))
    }
    return tuple(sorted(word for word in found if len(word) > 1))


@cache
def _make_parser() -> Lark:
    grammar = resources.files("spanproof.query_lang.syntax").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        grammar,
        parser="lalr",
        start=["start", "expectation", "question"],
        postlex=_LineEndFilter(),
        propagate_positions=True,
        maybe_placeholders=True,
        cache=_find_cache_path() or False,
    )


def _find_cache_path() -> str | None:
    """Return where the parser's tables are kept between runs, which saves a tenth of a second; None for nowhere."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spanproof"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = folder.stat().st_uid == os.getuid()  # what is loaded from there is trusted
    except (OSError, RuntimeError):
        return None
    return str(folder / "grammar") if own and os.access(folder, os.W_OK) else None


class _LineEndFilter:
    """Drops the line ends that separate nothing, and refuses words that nothing separates."""

    always_accept = ("_NL",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        opened: list[Token] = []
        before = ""
        last: Token | None = None
        for token in stream:
            if (
                last is not None
                and last.end_pos == token.start_pos
                and _is_word_character(last[-1])
                and _is_word_character(token[0])
            ):
                raise ProofSyntaxError(_make_joined_words_diagnostic(last, token))
            last = token
            if token.type == "_NL":
                free = opened and opened[-1].type in ("LPAR", "LSQB")
                if free or before in ("", "LBRACE", "COMMA", "_NL"):
                    continue
            elif token.type in CLOSING:
                opened.append(token)
            elif token.type in OPENING and opened and opened[-1].type == OPENING[token.type]:
                opened.pop()
            before = token.type
            yield token
        if opened:
            raise ProofSyntaxError(_make_unclosed_diagnostic(opened[-1]))


def _is_word_character(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


def _make_joined_words_diagnostic(one: Token, other: Token) -> Diagnostic:
    """A word of the language was read off the front of a longer one."""
    at = TextRange(one.start_pos or 0, other.end_pos or 0)
    hint = suggest_names(one + other, (*ITEMS, *STATEMENTS)) or f"did you mean `{one} {other}`?"
    return Diagnostic("syntax", f"`{one}{other}` is not part of the language", at, hint)


def _make_unclosed_diagnostic(token: Token) -> Diagnostic:
    return Diagnostic("unclosed", f"this `{token}` has no `{CLOSING[token.type]}`", _locate_token(token))


def _locate_token(token: Token) -> TextRange:
    return TextRange(token.start_pos or 0, token.end_pos or 0)


def _make_diagnostic(error: UnexpectedInput, text: str) -> Diagnostic:
    if isinstance(error, UnexpectedCharacters):
        place = error.pos_in_stream or 0
        at = TextRange(place, place + 1)
        character = text[place]
        if character == '"':
            return Diagnostic("unclosed", 'this string has no closing `"` on its line', at)
        shown = character if character.isprintable() else f"U+{ord(character):04X}"
        help_ = "a name with such letters is written in quotes" if character.isalpha() else None
        return Diagnostic("syntax", f"`{shown}` is not part of the language", at, help_)
    if isinstance(error, UnexpectedToken):
        return _make_token_diagnostic(error, text)
    return Diagnostic("syntax", "the text ends too early", TextRange(max(len(text) - 1, 0), len(text)))


def _make_token_diagnostic(error: UnexpectedToken, text: str) -> Diagnostic:
    token = error.token
    expected = set(error.accepts or error.expected)
    at_end = token.type in ("$END", "_NL")
    at = TextRange(len(text.rstrip()), len(text.rstrip()) + 1) if token.type == "$END" else _locate_token(token)
    found = "the file ends" if token.type == "$END" else "the line ends" if at_end else f"`{token}` stands"
    if token.type == "EQUAL":
        return Diagnostic("single-equals", "a comparison is written `==`", at, "write `==` in place of `=`")
    if token.type in OPENING and not expected & {token.type}:
        for kind in ("RPAR", "RSQB", "RBRACE"):
            if kind in expected and kind != token.type:
                return Diagnostic("unclosed", f"`{CLOSING[OPENING[kind]]}` is missing before this `{token}`", at)
    before = text[: at.start].rstrip()
    for arrow in ("->>", "->", "~>"):
        if before.endswith(arrow):
            return Diagnostic(
                "syntax",
                f"{found} where a service was expected: `{arrow}` leads to one",
                at,
                f"write `{arrow} SERVICE`",
            )
    if expected == {"MATCHES", "CONFORMS"}:
        parts = ", ".join(f"`response.{part}`" for part in RESPONSE_PARTS)
        message = "`response` alone is no value, nor a contract"
        return Diagnostic("syntax", message, at, f'write {parts}, or `response matches schema "…"`')
    if str(token) == "=>":
        return Diagnostic("syntax", "`=>` belongs to `fallback A -> B => C`", at, "a path is written with `->`")
    if expected & {"EXPECT", "WHEN"} or expected & {"PROOF"}:
        words = STATEMENTS if "EXPECT" in expected else ITEMS
        hint = suggest_names(str(token), words)
        listed = ", ".join(f"`{word}`" for word in words)
        return Diagnostic("syntax", f"{found} where a statement was expected", at, hint or f"a statement is {listed}")
    return Diagnostic(
        "syntax", f"{found} where {_format_expected(expected)} was expected", at, _suggest_quotes(token, text)
    )


def _suggest_quotes(token: Token, text: str) -> str | None:
    if token.type not in TERMINAL_NAMES and str(token).isalpha() and str(token).islower():
        return f'a service or attribute called "{token}" is written in quotes'
    return None


TERMINAL_NAMES: Final = {
    "NAME": "a name",
    "STRING": "a string",
    "NUMBER": "a number",
    "FUNCTION": "a function",
    "COMPARE": "a comparison",
    "ARROW": "`->`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "COLON": "`:`",
    "COMMA": "`,`",
    "HAS": "`has`",
    "METHOD": "a method such as `GET`",
    "_NL": "a line end",
    "$END": "the end",
}


def _format_expected(expected: set[str]) -> str:
    """Say in words what could have stood here, the likely things first, at most four."""
    words = [word for name, word in TERMINAL_NAMES.items() if name in expected]
    patterns = (_make_parser().get_terminal(name).pattern for name in expected if name not in TERMINAL_NAMES)
    keywords = sorted(f"`{pattern.value}`" for pattern in patterns if isinstance(pattern, PatternStr))
    if {"NAME", "STRING", "NUMBER"} <= expected:
        return "a value or a selection"
    shown = (words + keywords)[:4] or ["something else"]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " or " + shown[-1]
