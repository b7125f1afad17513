"""Separators: line breaks, commas and comments; line and column of an offset."""

from __future__ import annotations

import pytest

from spanproof.query_lang.check.checker import check_file
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import locate_offset
from spanproof.query_lang.syntax.parser import parse_claim, parse_file

PROOF = 'proof "p" {\n  when GET "http://x/"\n  expect count(a) == 1\n}\n'


@pytest.mark.parametrize(
    "text",
    [
        "retry a -> b { attempts == 3, backoff grows, exhausted }",
        "retry a -> b { attempts == 3\n backoff grows\n exhausted }",
        "retry a -> b {\n\n attempts == 3,\n backoff grows,\n exhausted,\n }",
        "retry a -> b { # why\n attempts == 3 # three\n # then\n backoff grows\n\n exhausted\n}",
        "retry a -> b {\r\n attempts == 3\r\n backoff grows\r\n exhausted\r\n}",
    ],
)
def test_commas_and_line_breaks_separate_items(text: str) -> None:
    parsed = parse_claim(text)
    assert parsed.expectation is not None, parsed.diagnostics
    assert isinstance(parsed.expectation.claim, s.Retry)
    assert [type(clause).__name__ for clause in parsed.expectation.claim.clauses] == ["Limit", "Flag", "Flag"]


@pytest.mark.parametrize(
    "text",
    [
        "count(\n a\n -> b\n) == 1",
        "count(a[\n error\n and root ]) == 1",
        "a in [\n1,\n2, # two\n3,\n]",
        "(1\n+ 2) == 3",
    ],
)
def test_line_breaks_inside_brackets_are_ignored(text: str) -> None:
    assert parse_claim(text).diagnostics == ()


@pytest.mark.parametrize("text", ["count(a)\n== 1", "path a ->\nb", "1 +\n2 == 3"])
def test_line_break_ends_statement(text: str) -> None:
    assert parse_claim(text).diagnostics != ()


def test_comments_are_allowed_everywhere() -> None:
    text = """\
# first
let a = 1 # beside
# between
proof "p" [ # tags
  smoke, # one
  # two
  fast
] { # open
  # within
  when POST "http://x/" { # options
    # nothing
    json { # body
      "a": 1, # one
      "b": [1, # two
            2]
    }
  } # done
  expect count( # what
    a) == 1
} # end
# last"""
    file = parse_file(text, "x")
    assert file.diagnostics == ()
    assert [type(item).__name__ for item in file.items] == ["Let", "Proof"]


@pytest.mark.parametrize("text", ["", "\n", "# only\n# comments", "  \t\n\f\n", "# no line end", "\r\n\r\n"])
def test_file_without_items_has_no_problems(text: str) -> None:
    file = parse_file(text, "x")
    assert (file.items, check_file(file)) == ((), ())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lf_and_crlf_are_accepted(end: str) -> None:
    text = f"# a{end}let\ta =\t1{end}{end}{PROOF}".replace("\r\n", "\n").replace("\n", end)
    file = parse_file(text, "x")
    assert check_file(file) == ()
    assert len(file.items) == 2


def test_line_and_column_count_from_one() -> None:
    positions = [locate_offset("ab\ncd", offset) for offset in range(6)]
    assert [(position.line, position.column) for position in positions] == [
        (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3),
    ]  # fmt: skip
