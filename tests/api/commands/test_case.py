"""`spanproof case`."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest

from spanproof.tests.command import Finished

Command = Callable[..., Finished]


CASE = """\
trace ok
  shop "GET /" server 0ms..10ms
    shop "GET" client 1ms..9ms { server.address: "bank" }

assert path shop -> bank
  pass
assert duration(shop) < 5ms
  fail "10ms"
"""


def test_expected_verdicts_exit_with_0(spanproof: Command, write: Callable[[str, str], Path]) -> None:
    ran = spanproof("case", write("good.case", CASE))
    assert ran.code == 0, ran
    assert re.fullmatch(r"1 file, \d+ verdicts, 0 differences\n", ran.out)


def test_difference_is_printed_once(spanproof: Command, write: Callable[[str, str], Path]) -> None:
    path = write("bad.case", CASE.replace("< 5ms", "< 50ms"))
    ran = spanproof("case", path)
    assert ran.out == (
        f"{path}:7: duration(shop) < 50ms\n"
        "    expected fail, got pass: 10ms (n = 1)\n"
        "    (in every variation)\n"
        "1 file, 6 verdicts, 1 difference\n"
    )


def test_difference_names_its_variations(spanproof: Command, write: Callable[[str, str], Path]) -> None:
    claim = f'every shop has trace_id == "{blake2b(b"/ok/0", digest_size=16).hexdigest()}"'
    path = write("bad.case", f"{CASE}assert {claim}\n  pass\n")
    ran = spanproof("case", path)
    assert f"{path}:9: {claim}\n    expected pass, got fail: " in ran.out
    assert "    (only duplicated, shifted in time, under other ids)\n1 file, 9 verdicts, 1 difference\n" in ran.out


def test_unfinished_spans_and_resources_of_cases(spanproof: Command, write: Callable[[str, str], Path]) -> None:
    case = """\
trace a
  resource shop { region: "eu" }
  shop "GET /" server 0ms..10ms
    shop "job" internal 2ms.. error "it broke" scope { name: "lib", version: "2", stable: true }
    resource "x" internal 3ms..5ms
    bank "GET" server 3ms..5ms resource { region: "us" }

assert every shop has resource.region == "eu"
  pass
assert every bank has resource.region == "us"
  pass
assert some span "job" has status == error and status_message == "it broke" and scope.name == "lib"
  pass
assert some span "job" has scope.version == "2" and scope.stable == true
  pass
"""
    ran = spanproof("case", write("good.case", case))
    assert (ran.code, ran.out) == (0, "1 file, 12 verdicts, 0 differences\n")
    ran = spanproof("case", write("bad.case", case.replace('{ region: "eu" }', '{ region: "eu" } 5ms')))
    assert ran.err.endswith("bad.case: line 2: `5ms` follows the resource\n")


def test_unexpected_verdict_exits_with_1(spanproof: Command, write: Callable[[str, str], Path]) -> None:
    ran = spanproof("case", write("bad.case", CASE.replace("< 5ms", "< 50ms")))
    assert ran.code == 1, ran
    assert "bad.case:7: duration(shop) < 50ms\n    expected fail, got pass" in ran.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense\n", "line 1: `nonsense` is not a statement"),
        ("assert path a -> b\n", "line 1: no verdict follows"),
        ('trace t\n  a "x" sever 0ms..1ms\n', "line 2: `sever` is not a span kind"),
        ('trace t\n  a "x" server 0ms..1ms link nobody\nassert count(a) == 1\n  pass\n', "nobody"),
        ('trace t\n  a "x" server 0ms..1ms\nassert count(a) == 1\n  pass\n  witness nobody\n', "nobody"),
        ('trace t\n  a "x" server 0ms..1ms x many\n', "many"),
        ('trace t\n  a "x\n', "line 2"),
    ],
)
def test_invalid_case_file_exits_with_2(
    spanproof: Command, write: Callable[[str, str], Path], text: str, message: str
) -> None:
    ran = spanproof("case", write("bad.case", text))
    assert ran.code == 2, ran
    assert re.fullmatch(r"spanproof: .*bad\.case: .*\n", ran.err)
    assert message in ran.err
