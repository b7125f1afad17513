"""Parser: text -> syntax tree. A syntax error becomes a diagnostic that lists the expected tokens."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from lark import Lark, ParseTree, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError
from lark.lexer import PatternStr
from msgspec import Struct

from spanproof.query_lang.syntax import nodes as syntax
from spanproof.query_lang.syntax.diagnostics import Diagnostic, suggest_names
from spanproof.query_lang.syntax.literals import SIMPLE_WORD_CHARACTERS, DiagnosticError, find_word_characters
from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.syntax.transformer import ProofTransformer
from spanproof.query_lang.syntax.vocabulary import RESPONSE_PARTS

MAX_DEPTH: Final = 100  # nested rules; a pair of parentheses takes three
CLOSING: Final = {"LPAR": ")", "LSQB": "]", "LBRACE": "}"}
OPENING: Final = {"RPAR": "LPAR", "RSQB": "LSQB", "RBRACE": "LBRACE"}
STATEMENTS: Final = ("let", "when", "settle", "given", "compare", "apply", "before", "after", "expect")
ITEMS: Final = ("let", "define", "proof", "use", "before", "after")
CLAIMS: Final = (
    "budget",
    "circuit",
    "every",
    "fallback",
    "if",
    "no",
    "only",
    "path",
    "response",
    "retry",
    "some",
    "timeout",
)
TEXT_KINDS: Final = {"start": "file", "expectation": "claim", "metric_query": "query"}
MAX_DIAGNOSTICS: Final = 20
_SHARE_OPERATORS: Final = {"": ">=", "at least": ">=", "more than": ">", "at most": "<=", "less than": "<"}
_SHARE: Final = re.compile(
    r"[ \t]*(?:(?P<words>(?:at[ \t]+(?:least|most)|(?:more|less)[ \t]+than))?[ \t]*(?P<percent>\d+(?:\.\d+)?)[ \t]*%"
    r"|(?:all|every|each)\b)"
)


class ParsedFile(Struct, frozen=True):
    """Parsed file. If there are ``diagnostics``, ``items`` are those of the lines without errors."""

    path: str
    text: str
    items: tuple[syntax.Item, ...]
    diagnostics: tuple[Diagnostic, ...]


class ParsedClaim(Struct, frozen=True):
    """Claim parsed on its own, as in a ``.case`` file."""

    text: str
    expectation: syntax.Expectation | None
    diagnostics: tuple[Diagnostic, ...]


class ProofSyntaxError(Exception):
    """Error for a text that does not match the grammar. Holds the diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def parse_file(text: str, path: str) -> ParsedFile:
    """Parse a proof file. Skip each line that has a syntax error, so that later lines are checked too."""
    diagnostics: list[Diagnostic] = []
    remaining = text
    while len(diagnostics) < MAX_DIAGNOSTICS:
        try:
            return ParsedFile(path, text, _parse(remaining, "start"), tuple(diagnostics))
        except ProofSyntaxError as error:
            diagnostics.append(error.diagnostic)
            without_line = _blank_line(remaining, error.diagnostic.at.start)
            if without_line is None:
                break
            remaining = without_line
    return ParsedFile(path, text, (), tuple(diagnostics))


def _blank_line(text: str, offset: int) -> str | None:
    """Return `text` with the line at `offset` blanked, or None if that line has an unmatched bracket."""
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
    except ProofSyntaxError as error:
        return ParsedClaim(text, None, (error.diagnostic,))
    return ParsedClaim(text, expectation, ())


def parse_query(text: str) -> syntax.MetricQuery:
    """Parse a query. Line breaks count as spaces. Raises ProofSyntaxError."""
    query: syntax.MetricQuery = _parse(re.sub(r"[\r\n]", " ", text), "metric_query")
    return query


def _parse(text: str, start: str):  # type: ignore[no-untyped-def]  # the type depends on `start`
    try:
        tree = _make_parser(find_word_characters(text)).parse(text, start=start)
        _check_depth(tree)
        return ProofTransformer().transform(tree)
    except UnexpectedInput as error:
        raise ProofSyntaxError(_make_diagnostic(error, text, start)) from None
    except VisitError as error:
        if isinstance(error.orig_exc, DiagnosticError):
            raise ProofSyntaxError(error.orig_exc.diagnostic) from None
        raise


def _check_depth(tree: ParseTree) -> None:
    """Reject a tree whose depth would exceed Python's stack."""
    pending = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH:
            at = TextRange(node.meta.start_pos, node.meta.end_pos)
            raise ProofSyntaxError(
                Diagnostic("too-deep", "this is nested too deeply", at, "name parts of it with `let`")
            )
        pending += [(child, depth + 1) for child in node.children if isinstance(child, Tree)]


def list_keywords() -> tuple[str, ...]:
    """Return the keywords of the grammar, sorted."""
    words = {
        match for terminal in _make_parser().terminals for match in re.findall(r"^[a-z]+", str(terminal.pattern.value))
    }
    return tuple(sorted(word for word in words if len(word) > 1))


@cache
def _make_parser(word_characters: str = SIMPLE_WORD_CHARACTERS) -> Lark:
    grammar = resources.files("spanproof.query_lang.syntax").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        grammar.replace("WORD_CHARACTERS", word_characters),
        parser="lalr",
        start=["start", "expectation", "metric_query"],
        postlex=_LineEndFilter(),
        propagate_positions=True,
        maybe_placeholders=True,
        cache=_find_cache_path("grammar" if word_characters == SIMPLE_WORD_CHARACTERS else "grammar-marks") or False,
    )


def _find_cache_path(name: str) -> str | None:
    """Return the path of the cached parser tables, or None if no safe folder exists. The cache saves 0.1 s per run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spanproof"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = folder.stat().st_uid == os.getuid()  # files loaded from this folder are trusted
    except (OSError, RuntimeError):
        return None
    return str(folder / name) if own and os.access(folder, os.W_OK) else None


class _LineEndFilter:
    """Filter of tokens: drops line breaks that separate nothing, and rejects adjacent words without a separator."""

    always_accept = ("_NL",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        opened: list[Token] = []
        previous_type = ""
        previous: Token | None = None
        for token in stream:
            if (
                previous is not None
                and previous.end_pos == token.start_pos
                and _is_word_character(previous[-1])
                and _is_word_character(token[0])
            ):
                raise ProofSyntaxError(_make_joined_words_diagnostic(previous, token))
            previous = token
            if token.type == "_NL":
                in_brackets = opened and opened[-1].type in ("LPAR", "LSQB")
                if in_brackets or previous_type in ("", "LBRACE", "COMMA", "_NL"):
                    continue
            elif token.type in CLOSING:
                opened.append(token)
            elif token.type in OPENING and opened and opened[-1].type == OPENING[token.type]:
                opened.pop()
            previous_type = token.type
            yield token
        if opened:
            raise ProofSyntaxError(_make_unclosed_diagnostic(opened[-1]))


def _is_word_character(letter: str) -> bool:
    return letter.isalnum() or letter == "_" or unicodedata.category(letter).startswith("M")


def _make_joined_words_diagnostic(first: Token, second: Token) -> Diagnostic:
    """Return the diagnostic for a word that starts with a keyword, which the lexer splits."""
    at = TextRange(first.start_pos or 0, second.end_pos or 0)
    hint = suggest_names(first + second, (*ITEMS, *STATEMENTS)) or f"did you mean `{first} {second}`?"
    return Diagnostic("syntax", f"`{first}{second}` is not part of the language", at, hint)


def _make_unclosed_diagnostic(token: Token) -> Diagnostic:
    return Diagnostic("unclosed", f"this `{token}` has no `{CLOSING[token.type]}`", _locate_token(token))


def _locate_token(token: Token) -> TextRange:
    return TextRange(token.start_pos or 0, token.end_pos or 0)


def _make_diagnostic(error: UnexpectedInput, text: str, start: str) -> Diagnostic:
    if isinstance(error, UnexpectedCharacters):
        offset = error.pos_in_stream or 0
        at = TextRange(offset, offset + 1)
        character = text[offset]
        if character == '"':
            return Diagnostic("unclosed", 'this string has no closing `"` on its line', at)
        shown = character if character.isprintable() else f"U+{ord(character):04X}"
        return Diagnostic("syntax", f"`{shown}` is not part of the language", at)
    if isinstance(error, UnexpectedToken):
        return _make_token_diagnostic(error, text, start)
    return Diagnostic("syntax", "the text ends too early", TextRange(max(len(text) - 1, 0), len(text)))


def _make_token_diagnostic(error: UnexpectedToken, text: str, start: str) -> Diagnostic:
    token = error.token
    expected = set(error.accepts or error.expected)
    at_end = token.type in ("$END", "_NL")
    at = TextRange(len(text.rstrip()), len(text.rstrip()) + 1) if token.type == "$END" else _locate_token(token)
    actual = (
        f"the {TEXT_KINDS[start]} ends"
        if token.type == "$END"
        else "the line ends"
        if at_end
        else f"`{token}` was found"
    )
    if token.type == "EQUAL":
        return Diagnostic("single-equals", "a comparison is written `==`", at, "write `==` in place of `=`")
    if token.type in OPENING and not expected & {token.type}:
        for kind in ("RPAR", "RSQB", "RBRACE"):
            if kind in expected and kind != token.type:
                return Diagnostic("unclosed", f"`{CLOSING[OPENING[kind]]}` is missing before this `{token}`", at)
    text_before = text[: at.start].rstrip()
    for arrow in ("->>", "->", "~>"):
        if text_before.endswith(arrow):
            return Diagnostic(
                "syntax",
                f"{actual} where a service was expected: `{arrow}` leads to one",
                at,
                f"write `{arrow} SERVICE`",
            )
    if expected == {"MATCHES", "CONFORMS"}:
        parts = ", ".join(f"`response.{part}`" for part in RESPONSE_PARTS)
        message = "`response` alone is neither a value nor a contract"
        return Diagnostic("syntax", message, at, f'write {parts}, or `response matches schema "…"`')
    if str(token) == "in" and "IN_SHARE" in expected:
        share = _suggest_share(text[at.end :])
        return Diagnostic("syntax", "a share of traces begins with a comparison after `in`", at, f"write `{share}`")
    if str(token) == "=>":
        return Diagnostic("syntax", "`=>` belongs to `fallback A -> B => C`", at, "a path is written with `->`")
    if expected & {"EXPECT", "WHEN"} or expected & {"PROOF"}:
        words = STATEMENTS if "EXPECT" in expected else ITEMS
        hint = suggest_names(str(token), words)
        listed = ", ".join(f"`{word}`" for word in words)
        return Diagnostic("syntax", f"{actual} where a statement was expected", at, hint or f"a statement is {listed}")
    word = re.search(r"(\A|\bexpect)\s*(?:no\s+)?(?P<word>[a-z]+)\Z", text_before)
    hint = suggest_names(word["word"], CLAIMS) if word and not at_end else None
    if word and hint and word["word"] not in CLAIMS:
        at = TextRange(word.start("word"), word.end("word"))
        return Diagnostic("syntax", f"no claim begins with `{word['word']}`", at, hint)
    help_ = "a share is written `in >= 99% of traces`" if expected == {"OF"} else None
    return Diagnostic("syntax", f"{actual} where {_format_expected(expected)} was expected", at, help_)


def _suggest_share(rest: str) -> str:
    """Return the share of traces that the text after `in` means, such as `in >= 99% of traces`."""
    match = _SHARE.match(rest)
    if match is None:
        return "in >= 99% of traces"
    operator = _SHARE_OPERATORS[" ".join((match["words"] or "").split())]
    return f"in {operator} {match['percent']}% of traces" if match["percent"] else "in >= 100% of traces"


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
    """Return the expected tokens in words: the likely ones first, at most four."""
    words = [word for name, word in TERMINAL_NAMES.items() if name in expected]
    patterns = (_make_parser().get_terminal(name).pattern for name in expected if name not in TERMINAL_NAMES)
    keywords = sorted(f"`{pattern.value}`" for pattern in patterns if isinstance(pattern, PatternStr))
    if {"NAME", "STRING", "NUMBER"} <= expected:
        return "a value or a selection"
    shown = (words + keywords)[:4] or ["something else"]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " or " + shown[-1]
