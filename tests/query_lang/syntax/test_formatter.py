"""Formatter: it keeps the tree and the comments, and is idempotent."""

import re
from pathlib import Path

import pytest

import spanproof
from spanproof.query_lang.syntax.formatter import format_file, is_same_tree
from spanproof.query_lang.syntax.parser import parse_file

ROOT = Path(spanproof.__file__).parent
PROOFS = sorted((ROOT / "examples").rglob("*.proof"))
UNFORMATTED = """
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
  expect payments "POST *"[ name=~"x" ] before "My Service"[kind==server]  within  5ms
  expect every a has json( app.order ).items [0].id=="x"and json(app.order) ["k"]==1
  expect if   some a[error]then count(a->b)<=2 in>=99% of traces
}
"""
FORMATTED = """\
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
  expect payments "POST *"[name =~ "x"] before "My Service"[kind == server] within 5ms
  expect every a has json(app.order).items[0].id == "x" and json(app.order)["k"] == 1
  expect if some a[error] then count(a -> b) <= 2 in >= 99% of traces
}
"""


def test_unformatted_file_is_formatted() -> None:
    text = UNFORMATTED.replace("  expect not_a_function ( x ) * 2 < 1\n", "")
    file = parse_file(text, "x.proof")
    assert file.diagnostics == ()
    assert format_file(file) == FORMATTED


@pytest.mark.parametrize("text", [path.read_text(encoding="utf-8") for path in PROOFS], ids=[p.stem for p in PROOFS])
def test_formatting_keeps_tree_and_comments(text: str) -> None:
    unformatted = re.sub(r"^ +", lambda match: match.group() * 3, text, flags=re.MULTILINE).replace("\n", "\r\n")
    before = parse_file(unformatted, "x.proof")
    formatted = format_file(before)
    after = parse_file(formatted, "x.proof")
    assert after.diagnostics == ()
    assert is_same_tree(before.items, after.items)
    assert re.findall(r"#.*", formatted) == [comment.rstrip() for comment in re.findall(r"#.*", unformatted)]
    assert format_file(after) == formatted


def test_example_proofs_are_formatted() -> None:
    for path in PROOFS:
        file = parse_file(path.read_text(encoding="utf-8"), str(path))
        assert format_file(file) == file.text, path


def test_empty_file_stays_empty() -> None:
    assert format_file(parse_file("\n\n", "x.proof")) == ""


def test_different_trees_are_not_same() -> None:
    one, other = (parse_file(f"let x = {value}", "x.proof").items for value in (1, 2))
    assert not is_same_tree(one, other)
    assert is_same_tree(one, parse_file("  let   x=1", "x.proof").items)


def test_names_of_any_script_are_kept_whole() -> None:
    text = 'let größe=3\nproof "x" {\n  expect count(サービス[span.имя=="a"])==größe\n}\n'
    formatted = format_file(parse_file(text, "x.proof"))
    assert formatted == ('let größe = 3\nproof "x" {\n  expect count(サービス[span.имя == "a"]) == größe\n}\n')
