"""Laying out: the tree stays, comments stay, and doing it twice changes nothing."""

import re
from pathlib import Path

import pytest

import spanproof
from spanproof.query_lang.syntax.formatter import format_file, is_same_tree
from spanproof.query_lang.syntax.parser import parse_file

ROOT = Path(spanproof.__file__).parent
PROOFS = sorted((ROOT / "examples").rglob("*.proof"))
UGLY = """
let   base=env( "URL" )or"http://127.0.0.1:1"   # where


proof"x"[ smoke,checkout ]{

      when POST"{base}/x"{header"a":"b"  json{"n":-1,"l":[1,2]   ,"o":{}}}
  settle within 10s quiet   300ms
      # a comment of its own

  let limit=json( env( "LIMIT" ) )
  expect response.json.items[0].id=="a"     # beside
  expect every span[ status==error ]has http.response.status_code in[200..299,409]
  expect path gateway->orders->{ inventory , payments->>bank
     }
  expect count( * -> bank )-1<=-1
  expect not_a_function ( x ) * 2 < 1
  expect payments "POST *"[ name=~"x" ] before "My Service"[kind==server]
}
"""
LAID_OUT = """\
let base = env("URL") or "http://127.0.0.1:1"  # where

proof "x" [smoke, checkout] {
  when POST "{base}/x" { header "a": "b" json { "n": -1, "l": [1, 2], "o": {} } }
  settle within 10s quiet 300ms
  # a comment of its own

  let limit = json(env("LIMIT"))
  expect response.json.items[0].id == "a"  # beside
  expect every span[status == error] has http.response.status_code in [200..299, 409]
  expect path gateway -> orders -> { inventory, payments ->> bank
  }
  expect count(* -> bank) - 1 <= -1
  expect payments "POST *"[name =~ "x"] before "My Service"[kind == server]
}
"""


def test_an_ugly_file_becomes_a_pretty_one() -> None:
    text = UGLY.replace("  expect not_a_function ( x ) * 2 < 1\n", "")
    file = parse_file(text, "x.proof")
    assert file.diagnostics == ()
    assert format_file(file) == LAID_OUT


@pytest.mark.parametrize("text", [path.read_text(encoding="utf-8") for path in PROOFS], ids=[p.stem for p in PROOFS])
def test_the_tree_and_the_comments_stay(text: str) -> None:
    ugly = re.sub(r"^ +", lambda match: match.group() * 3, text, flags=re.MULTILINE).replace("\n", "\r\n")
    before = parse_file(ugly, "x.proof")
    laid_out = format_file(before)
    after = parse_file(laid_out, "x.proof")
    assert after.diagnostics == ()
    assert is_same_tree(before.items, after.items)
    assert re.findall(r"#.*", laid_out) == [comment.rstrip() for comment in re.findall(r"#.*", ugly)]
    assert format_file(after) == laid_out


def test_the_projects_own_proofs_are_laid_out() -> None:
    for path in PROOFS:
        file = parse_file(path.read_text(encoding="utf-8"), str(path))
        assert format_file(file) == file.text, path


def test_an_empty_file_stays_empty() -> None:
    assert format_file(parse_file("\n\n", "x.proof")) == ""


def test_other_trees_are_told_apart() -> None:
    one, other = (parse_file(f"let x = {value}", "x.proof").items for value in (1, 2))
    assert not is_same_tree(one, other)
    assert is_same_tree(one, parse_file("  let   x=1", "x.proof").items)
