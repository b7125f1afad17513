"""Syntax highlighting: Pygments and the TextMate grammar cover every word of the language."""

import json
import re
from pathlib import Path

import pytest
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Error, Keyword, Name, Number, String

import spanproof
from spanproof.query_lang.editor.highlight import ProofLexer
from spanproof.query_lang.editor.hover_texts import FIELD_HELP, FUNCTION_HELP, WORD_HELP
from spanproof.query_lang.syntax.parser import list_keywords
from spanproof.query_lang.syntax.vocabulary import FIELDS, FUNCTIONS, PICKS

ROOT = Path(spanproof.__file__).parent
GRAMMAR = json.loads((ROOT / "editors/vscode/syntaxes/proof.tmLanguage.json").read_text(encoding="utf-8"))
LINE = 'expect p95(duration(my-retry "GET {x}")) < 400.5ms  # no "retry" here'


def test_pygments_finds_lexer_by_name() -> None:
    assert isinstance(get_lexer_by_name("proof"), ProofLexer)


def test_lexer_colours_each_kind_of_token() -> None:
    tokens = [(kind, text) for kind, text in ProofLexer().get_tokens(LINE) if text.strip()]
    assert (Keyword, "expect") in tokens
    assert (Name.Builtin, "p95") in tokens
    assert (Name, "my-retry") in tokens
    assert (String.Interpol, "{x}") in tokens
    assert (Number, "400.5ms") in tokens
    assert tokens[-1] == (Comment.Single, '# no "retry" here')


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.proof")), ids=lambda path: path.stem)
def test_example_proofs_have_no_error_tokens(path: Path) -> None:
    assert not [text for kind, text in ProofLexer().get_tokens(path.read_text(encoding="utf-8")) if kind is Error]


@pytest.mark.parametrize(("part", "known"), [("keyword", list_keywords()), ("function", FUNCTIONS)])
def test_textmate_grammar_has_same_words(part: str, known: tuple[str, ...]) -> None:
    pattern = re.compile(GRAMMAR["repository"][part]["match"])
    after = "(" if part == "function" else " "
    assert [word for word in known if not pattern.match(word + after)] == []
    assert not pattern.match("my-" + known[0])


def test_hover_texts_cover_vocabulary() -> None:
    assert set(FUNCTION_HELP) == {*FUNCTIONS, *PICKS}
    assert set(FIELD_HELP) == {name for fields in FIELDS.values() for name in fields}
    assert set(WORD_HELP) <= set(list_keywords())


def test_names_of_any_script_are_coloured_whole() -> None:
    tokens = list(ProofLexer().get_tokens('expect count(größe-2 -> サービス "{имя}") == 1'))
    assert {(Name, "größe-2"), (Name, "サービス"), (String.Interpol, "{имя}")} <= set(tokens)


def test_editor_grammars_have_the_same_names() -> None:
    configuration = json.loads((ROOT / "editors/vscode/language-configuration.json").read_text(encoding="utf-8"))
    name = GRAMMAR["repository"]["name"]["match"]
    assert configuration["wordPattern"] == {"pattern": name.replace("(?:", "("), "flags": "u"}
    for letters in (r"\p{L}", r"\p{M}", r"\p{N}"):
        assert letters in name
