"""Proofs as pytest items, in separate pytest runs."""

from __future__ import annotations

import json
import socket
from importlib.metadata import entry_points

import pytest

from spanproof.assertions.pytest_plugin.collector import find_shared_address
from spanproof.assertions.pytest_plugin.settings import read_settings

FIRST, SECOND, THIRD = (
    f"shop.proof::{name}" for name in ("the bank is called", "payments: : (are) used", "a silent service is unknown")
)


def test_plugin_is_registered() -> None:
    (entry_point,) = entry_points(group="pytest11", name="spanproof")
    assert entry_point.value == "spanproof.assertions.pytest_plugin"


def test_proofs_are_items_with_report_as_failure(project: pytest.Pytester) -> None:
    ran = project.runpytest("-v")
    ran.assert_outcomes(passed=1, failed=2)
    ran.stdout.fnmatch_lines_random([f"{FIRST} PASSED*", f"{SECOND} FAILED*", f"{THIRD} FAILED*"])
    ran.stdout.fnmatch_lines(
        [
            "FAIL  shop.proof::payments: :: [[]are] used   1 failed*",
            "fail[[]path-mismatch]: `shop` called `bank`, not `payments`",
            "   --> shop.proof:10:23",
            "10  |   expect path shop -> payments",
            "    |               ----    ^^^^^^^^ not taken; nearest: `bank`",
            "*GET /transfers*",
            f"   = rerun: pytest '{SECOND}'",
            "INCONCLUSIVE shop.proof::a silent service is unknown   1 inconclusive*",
            "inconclusive[[]incomplete]: no span of this trace has arrived, but spans of * other traces have: *",
            f"FAILED {SECOND} - `shop` called `bank`, not `payme*",
            f"FAILED {THIRD} - inconclusive: no span of *",
        ]
    )
    ran.stdout.no_fnmatch_line("*Traceback*")
    ran.stdout.no_fnmatch_line("*.py:*")
    again = project.runpytest("--lf", "-k", "bank or payments", "--color=yes")
    again.assert_outcomes(failed=1, deselected=1)
    assert "\x1b[1;31mFAIL \x1b[0m\x1b[1m shop.proof::payments" in again.stdout.str()


def test_proofs_are_selected_like_tests(project: pytest.Pytester) -> None:
    def choose(*arguments: str) -> list[str]:
        ran = project.runpytest("--collect-only", "-q", "--strict-markers", *arguments)
        return [line for line in ran.outlines if "::" in line]

    project.mkdir("more").joinpath("empty.proof").write_text("define d(x) {\n  expect some x\n}\n")
    assert choose() == [FIRST, SECOND, THIRD]
    assert choose("-k", "payments or silent") == [SECOND, THIRD]
    assert choose("-m", "smoke") == [FIRST]
    assert choose(FIRST, SECOND) == [FIRST, SECOND]
    assert choose("--ignore-glob", "*.proof") == []


def test_each_xdist_worker_has_own_collector(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from pathlib import Path
        def test_where(spanproof, worker_id):
            Path(worker_id).write_text(spanproof.endpoint)
        test_there = test_where
        """
    )
    ran = project.runpytest_subprocess("-p", "xdist", "-n", "2", "--dist", "each", "-k", "not silent")
    ran.assert_outcomes(passed=6, failed=2)
    ran.stdout.fnmatch_lines(["fail[[]path-mismatch]: `shop` called `bank`, not `payments`"])
    assert len({(project.path / worker).read_text() for worker in ("gw0", "gw1")}) == 2


def test_workers_cannot_share_address(project: pytest.Pytester) -> None:
    config = project.parseconfig("--spanproof-otlp-grpc", "127.0.0.1:4317")
    settings = read_settings(config)
    assert find_shared_address(config, settings) is None
    config.workerinput = {"workercount": 1}
    assert find_shared_address(config, settings) is None
    config.workerinput = {"workercount": 2}
    assert (find_shared_address(config, settings) or "").startswith(
        "--spanproof-otlp-grpc 127.0.0.1:4317 is one address"
    )


def test_used_address_is_named(project: pytest.Pytester) -> None:
    with socket.create_server(("127.0.0.1", 0)) as socket_:
        address = f"127.0.0.1:{socket_.getsockname()[1]}"
        ran = project.runpytest("-k", "bank", "--spanproof-otlp-http", address)
    ran.assert_outcomes(errors=1, deselected=2)
    ran.stdout.fnmatch_lines([f"*{address}*in use*"])
    ran.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("  expct response.status == 0", ["error[[]syntax]: `expct` *", "  --> wrong.proof:3:3", "3  |   expct *"]),
        ("  expect duration(a) < 3kg", ["error[[]unknown-unit]: *", "  --> wrong.proof:3:*", "3  |   expect *"]),
    ],
)
def test_invalid_file_is_collection_error(project: pytest.Pytester, text: str, messages: list[str]) -> None:
    project.makefile(".proof", wrong=f'proof "p" {{\n  when run "true"\n{text}\n}}')
    ran = project.runpytest("-q", "wrong.proof")
    assert ran.ret == pytest.ExitCode.INTERRUPTED
    ran.stdout.fnmatch_lines(["*ERROR collecting wrong.proof*", *messages, "ERROR wrong.proof - *"])
    ran.stdout.no_fnmatch_line("*.py:*")


def test_binary_file_is_collection_error(project: pytest.Pytester) -> None:
    project.path.joinpath("wrong.proof").write_bytes(b"proof \xff")
    ran = project.runpytest("wrong.proof")
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(["*wrong.proof: not text in UTF-8, see byte 6"])


# ## Options

OPTIONS_PROOF = """
let a = "a"
let b = "b"
let c = "c"
proof "options" {
  when run "echo {a} {b} {c} $FROM_FILE"
  expect response.body == "" as "printed {a} {b} {c}"
  expect env("FROM_FILE") == "from the file"
}
"""


def test_options_and_configuration_set_values(project: pytest.Pytester) -> None:
    project.makefile(".proof", options=OPTIONS_PROOF)
    project.makefile(".env", options="FROM_FILE='from the file'")
    project.makeini("[pytest]\nspanproof_var =\n  a=from ini\n  b=from ini too\nspanproof_env_file = options.env")
    project.makepyfile("def test_fails(spanproof):\n    settings = spanproof.settings\n    assert not settings")
    options = ("--showlocals", "--spanproof-var", "b=over", "--spanproof-secret", "c=in confidence")
    ran = project.runpytest("options.proof", *project.path.glob("*.py"), *options)
    ran.assert_outcomes(failed=2)
    ran.stdout.fnmatch_lines(["*1 passed, 1 failed*", "*from ini over*"])
    ran.stdout.no_fnmatch_line("*in confidence*")


def test_env_file_option_overrides_configuration(project: pytest.Pytester) -> None:
    project.makefile(".proof", options='proof "p" {\n  when run "true"\n  expect env("FROM_FILE") == "here"\n}')
    project.makefile(".env", here="FROM_FILE=here")
    project.makeini("[pytest]\nspanproof_env_file = missing.env")
    project.runpytest("options.proof", "--spanproof-env-file", "here.env").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("options", "configured", "message"),
    [
        (["--spanproof-var", "x"], "", "--spanproof-var is NAME=VALUE, not 'x'"),
        (["--spanproof-secret", "x=abc"], "", "--spanproof-secret x: a value of less than 4 letters cannot be masked"),
        (["--spanproof-env-file", "missing.env"], "", "*missing.env: No such file or directory"),
        (
            ["--spanproof-otlp-http", "0.0.0.0:0"],
            "",
            "--spanproof-otlp-http: 0.0.0.0:0 can be reached from other machines*",
        ),
        (["--spanproof-otlp-grpc", "nowhere"], "", "'nowhere' is not an address*"),
        ([], "spanproof_max_retry_gap = soon", "spanproof_max_retry_gap: `soon` is not a duration"),
        ([], "spanproof_max_clock_skew = -1s", "spanproof_max_clock_skew: -1s is negative"),
    ],
)
def test_invalid_option_is_usage_error(
    project: pytest.Pytester, options: list[str], configured: str, message: str
) -> None:
    project.makeini(f"[pytest]\n{configured}")
    ran = project.runpytest(*options)
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    ran.stderr.fnmatch_lines([f"ERROR: spanproof: {message}"])


def test_collector_uses_rules_and_addresses(project: pytest.Pytester) -> None:
    project.makeini(
        "[pytest]\nspanproof_proxy = envoy\nspanproof_circuit_marker = Open\nspanproof_max_retry_gap = 2s\n"
        "spanproof_max_clock_skew = 3ms\nspanproof_otlp_grpc = 127.0.0.2:0"
    )
    project.makepyfile(
        """
        import json
        from pathlib import Path
        def test_rules(spanproof):
            rules = spanproof.settings.rules
            Path("rules.json").write_text(json.dumps([spanproof.grpc_endpoint, spanproof.http_endpoint, rules.proxies,
                rules.circuit_markers[-1], rules.max_retry_gap_ns, rules.max_clock_skew_ns]))
            stored = spanproof.store.cursor().execute("SELECT proxies FROM rules").fetchone()
            assert stored == (["envoy"],)
        """
    )
    project.runpytest("-k", "rules", "--spanproof-otlp-http", "127.0.0.3:0").assert_outcomes(passed=1, deselected=3)
    grpc, http, *rules = json.loads((project.path / "rules.json").read_text())
    assert grpc.startswith("http://127.0.0.2:")
    assert http.startswith("http://127.0.0.3:")
    assert rules == [["envoy"], "Open", 2_000_000_000, 3_000_000]
