"""Syntax highlighting of proofs: a Pygments lexer. Pygments finds it as ``proof`` once spanproof is installed."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

from spanproof.query_lang.syntax.literals import NAME
from spanproof.query_lang.syntax.parser import list_keywords
from spanproof.query_lang.syntax.vocabulary import CONSTANTS, FUNCTIONS, PICKS


class ProofLexer(RegexLexer):  # type: ignore[misc]  # Pygments' lexers have no types
    """Pygments lexer of ``.proof`` files."""

    name = "spanproof"
    aliases: ClassVar = ["proof", "spanproof"]
    filenames: ClassVar = ["*.proof"]
    url = "https://opentelemetry.io/docs/concepts/signals/traces/"

    tokens: ClassVar = {
        "root": [
            (r"#[^\n]*", Comment.Single),
            (r'"', String, "string"),
            (r"[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h|d|%|pp|/s)?(?!\w)", Number),
            (words((*FUNCTIONS, *PICKS), suffix=r"(?=\()"), Name.Builtin),
            (words(list_keywords(), prefix=r"(?<![-.\w])", suffix=r"(?![-.\w(])"), Keyword),
            (words(tuple(CONSTANTS), prefix=r"(?<![-.\w])", suffix=r"(?![-.\w])"), Keyword.Constant),
            (r"(?<=when )[A-Z]+", Keyword.Type),
            (NAME, Name),
            (r"->>|->|~>|=>|==|!=|<=|>=|=~|!~|\.\.|[-+*/<>=|]", Operator),
            (r"[(){}\[\],:.]", Punctuation),
            (r"\s+", Text.Whitespace),
        ],
        "string": [
            (r"\\.", String.Escape),
            (rf"\{{{NAME}\}}", String.Interpol),
            (r'"', String, "#pop"),
            (r'[^"\\{]+|\{', String),
        ],
    }
