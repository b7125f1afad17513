"""Messages and help of syntax errors."""

from __future__ import annotations

import pytest

from spanproof.query_lang.syntax.parser import ProofSyntaxError, parse_claim, parse_file, parse_query


@pytest.mark.parametrize(
    ("claim", "word", "help_"),
    [
        ("pth a -> b", "pth", "did you mean `path`?"),
        ("no pth a -> b", "pth", "did you mean `path`?"),
        ("evry a has error", "evry", "did you mean `every` or `retry`?"),
    ],
)
def test_misspelt_claim_is_suggested(claim: str, word: str, help_: str) -> None:
    for text, diagnostics in (
        (claim, parse_claim(claim).diagnostics),
        (proof := f'proof "p" {{\n  expect {claim}\n}}\n', parse_file(proof, "p.proof").diagnostics),
    ):
        (diagnostic,) = diagnostics
        assert (diagnostic.message, diagnostic.help) == (f"no claim begins with `{word}`", help_)
        assert text[diagnostic.at.start : diagnostic.at.end] == word


@pytest.mark.parametrize(
    ("claim", "share"),
    [
        ("path a -> b in 100% of traces", "in >= 100% of traces"),
        ("path a -> b in 99.5 % of traces", "in >= 99.5% of traces"),
        ("path a -> b in all traces", "in >= 100% of traces"),
        ("some a in at least 95% of traces", "in >= 95% of traces"),
        ("duration(a) < 5ms in at most 3%", "in <= 3% of traces"),
        ("count(a) in [1, 2] in each trace", "in >= 100% of traces"),
        ("path a -> b in most traces", "in >= 99% of traces"),
    ],
)
def test_share_without_comparison_is_suggested(claim: str, share: str) -> None:
    (diagnostic,) = parse_claim(claim).diagnostics
    assert (diagnostic.message, diagnostic.help) == (
        "a share of traces begins with a comparison after `in`",
        f"write `{share}`",
    )
    assert (claim[diagnostic.at.start : diagnostic.at.end], claim.rindex(" in ") + 1) == ("in", diagnostic.at.start)


def test_misplaced_keyword_is_no_name() -> None:
    assert parse_claim("path in -> of").diagnostics == ()
    (misplaced,) = parse_claim("count(a) == 1 by x in >= 99% of traces").diagnostics
    assert misplaced.help is None
    (cut,) = parse_claim("path a -> b in >= 99%").diagnostics
    assert cut.help == "a share is written `in >= 99% of traces`"


def test_message_names_what_ends() -> None:
    (diagnostic,) = parse_claim("path a ->").diagnostics
    assert diagnostic.message.startswith("the claim ends where ")
    with pytest.raises(ProofSyntaxError, match="the query ends where `last` was expected"):
        parse_query("count(a) over")
