"""``spanproof check --db``: warnings about names that the store does not contain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spanproof.tests.command import Finished

Write = Callable[[str, str], Path]
Prove = Callable[..., Finished]

FILLING = """
proof "fill the store" {
  when GET "{env("BASE_URL")}/a"
  expect path shop -> bank
}
"""
NAMES = """
let known = "shop"
define quick(service, limit) { expect duration(service) < limit }

proof "names" {
  given traces from shop over last 1h
  expect path shop -> bnak
  expect duration(shop "GET /b") < 1s
  expect every span shop[http.rout == "/a"] has resource.service.nam == "shop"
  expect every known has resource.service.name == "shop"
  expect count(traces) >= 1
  expect budget 1s { shop: 1s, stock: 1s, *: 1s }
  expect values(shop, cart.size) > 1
  apply quick(shop, 1s)
}
"""


def test_unknown_names_are_warned_about(prove: Prove, write: Write, spanproof: Callable[..., Finished]) -> None:
    filling = write("filling.proof", 'let base = env("BASE_URL")\n' + FILLING.replace('{env("BASE_URL")}', "{base}"))
    assert prove(filling, "--db", "spans.duckdb").code == 0
    ran = spanproof("check", write("names.proof", NAMES), "--db", "spans.duckdb")
    assert ran.code == 0, ran
    assert "1 file, 1 proof, 0 problems, 6 warnings" in ran.out
    warnings = [line for line in ran.out.splitlines() if line.startswith("warning[")]
    assert warnings == [
        "warning[unseen-service]: no service `bnak` has been seen",
        "warning[unseen-operation]: no operation `GET /b` of `shop` has been seen",
        "warning[unseen-attribute]: no span with an attribute `http.rout` has been seen",
        "warning[unseen-attribute]: no span with an attribute `resource.service.nam` has been seen",
        "warning[unseen-service]: no service `stock` has been seen",
        "warning[unseen-attribute]: no span with an attribute `cart.size` has been seen",
    ]
    assert "did you mean `bank`?" in ran.out
    assert "did you mean `resource.service.name`?" in ran.out


def test_missing_store_is_named(write: Write, spanproof: Callable[..., Finished]) -> None:
    ran = spanproof("check", write("names.proof", NAMES), "--db", "nowhere.duckdb")
    assert (ran.code, ran.err) == (2, "spanproof: nowhere.duckdb: no such file\n")
