"""Output and exit codes of the commands."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spanproof import __version__
from spanproof.api.cli.command_tree import read_commands
from spanproof.api.cli.main import app
from spanproof.collector.storage.store import Store
from spanproof.tests.api.stored_traces import StoredSpan, append
from spanproof.tests.command import FREE, FREE_PORTS, Finished, Running, Service
from spanproof.tests.ports import find_free_address

Command = Callable[..., Finished]
Starter = Callable[..., Running]
Prove = Callable[..., Finished]
COMMANDS = [each.path for each in read_commands(app).walk() if each.words and not each.commands]
SERVE = ("serve", *FREE_PORTS, "--api", FREE)
GOOD = """\
let base = env("BASE_URL")

proof "hello is answered" [smoke] {
  when GET "{base}/hello"
  settle within 10s
  expect response.status == 200
  expect response.json.state == "paid"
  expect path shop -> bank
  expect no path shop -> backup
  expect duration(shop) < 5s
}
"""
SHAPE = """\
proof "{name}" [{tag}] {{
  when GET "{base}{path}"
  settle within {limit}
  expect {claim}
}}
"""


@pytest.fixture
def proof(write: Callable[[str, str], Path], service: Service) -> Callable[..., Path]:
    """Write a proof with one claim about the service."""

    def proof(
        claim: str, *, name: str = "p", tag: str = "t", path: str = "/hello", limit: str = "10s", base: str = ""
    ) -> Path:
        text = SHAPE.format(name=name, tag=tag, path=path, limit=limit, claim=claim, base=base or service.base_url)
        return write(f"{name}.proof", text)

    return proof


# ## The command itself


def test_version_is_printed(tmp_path: Path) -> None:
    finished = Running(("--version",), tmp_path, {}, cold=True).finish()
    assert finished == Finished(0, f"spanproof {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: spanproof {command} " in " ".join(result.stdout.split())


@pytest.mark.parametrize("command", [each.path for each in read_commands(app).walk() if each.commands])
def test_help_of_groups_offers_no_completion(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])  # `spanproof completion` writes it
    assert result.exit_code == 0
    assert "--help" in result.stdout
    assert "-completion" not in result.stdout


def test_mistyped_command_is_suggested() -> None:
    result = CliRunner().invoke(app, ["ruin"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no such command `ruin`; did you mean `run`?" in result.stderr
    assert "did you mean" not in CliRunner().invoke(app, ["zzzzzz"]).stderr


def test_help_cuts_no_line() -> None:
    assert "..." not in CliRunner().invoke(app, ["--help"]).stdout.replace("[ARGS]...", "")


def test_help_lists_commands(spanproof: Command) -> None:
    result = spanproof("--help")
    assert result.code == 0
    assert [word for word in ("run", "check", "serve", "case", "trace", "demo") if f" {word} " not in result.out] == []


@pytest.mark.parametrize(
    "arguments", [["rum"], ["run", "--no-such-option"], ["run", "--inconclusive=maybe"], ["trace"]]
)
def test_wrong_usage_exits_with_2(spanproof: Command, arguments: list[str]) -> None:
    assert spanproof(*arguments).code == 2


# ## run: the four verdicts


def test_passing_proof_exits_with_0(prove: Prove, write: Callable[[str, str], Path]) -> None:
    ran = prove(write("good.proof", GOOD))
    assert ran.code == 0, ran
    assert "PASS  good.proof::hello is answered   5 passed" in ran.out
    assert "✓ path shop -> bank   in 1 trace" in ran.out
    assert "1 proof: 1 passed in" in ran.out
    assert ran.err == ""


def test_folder_is_searched_for_proofs(prove: Prove, write: Callable[[str, str], Path], tmp_path: Path) -> None:
    write("checks/deep/good.proof", GOOD)
    ran = prove(tmp_path / "checks")
    assert ran.code == 0, ran
    assert "PASS  checks/deep/good.proof::hello is answered" in ran.out


def test_failing_proof_exits_with_1_and_explains(prove: Prove, proof: Callable[..., Path]) -> None:
    ran = prove(proof("path shop -> bnak"))
    assert ran.code == 1, ran
    assert "fail[path-mismatch]: `shop` called `bank`, not `bnak`" in ran.out
    assert "--> p.proof:4:23" in ran.out
    assert "4  |   expect path shop -> bnak\n   |               ----    ^^^^ " in ran.out
    assert re.search(r"= trace [0-9a-f]{32}, ", ran.out)
    assert re.search(r"!! └ bank +GET /transfers +[·█]{26} ", ran.out)
    assert "= rerun: spanproof run p.proof -k p" in ran.out


def test_claim_without_matches_exits_with_3(prove: Prove, proof: Callable[..., Path]) -> None:
    ran = prove(proof("duration(shpo) < 1s"))
    assert ran.code == 3, ran
    assert "inconclusive[nothing-matched]: nothing matched" in ran.out
    assert "shop" in ran.out


def test_missing_spans_are_inconclusive(prove: Prove, proof: Callable[..., Path]) -> None:
    ran = prove(proof("path shop -> bank", path="/silent", limit="700ms"))
    assert ran.code == 3, ran
    assert "no span of this trace has arrived" in ran.out


def test_response_claim_needs_no_spans(prove: Prove, proof: Callable[..., Path]) -> None:
    ran = prove(proof("response.status == 200", path="/silent", limit="30s"))
    assert ran.code == 0, ran


def test_refused_connection_exits_with_4(spanproof: Command, proof: Callable[..., Path]) -> None:
    url = f"http://{find_free_address()}"
    ran = spanproof("run", proof("path shop -> bank", base=url), *FREE_PORTS)
    assert ran.code == 4, ran
    assert re.search(rf"^  ! GET {url}/hello failed: .*refused.*$", ran.out, re.MULTILINE)


def test_invalid_url_exits_with_4(spanproof: Command, proof: Callable[..., Path]) -> None:
    ran = spanproof("run", proof("path shop -> bank", base="nowhere"), *FREE_PORTS)
    assert ran.code == 4, ran
    assert "! `nowhere/hello` is not an address such as http://127.0.0.1:8080/path" in ran.out


def test_unset_variable_exits_with_4(spanproof: Command, write: Callable[[str, str], Path]) -> None:
    ran = spanproof("run", write("good.proof", GOOD), *FREE_PORTS)
    assert ran.code == 4, ran
    assert "! `base` has no value: set the environment variable BASE_URL, or pass --var base=…\n" in ran.out


@pytest.mark.parametrize(
    "value", ["json(response.body)", 'json("no json")', "response.json.a.b + 1", "1 / 0", 'len("ab") + 1']
)
def test_unavailable_value_causes_no_traceback(prove: Prove, write: Callable[[str, str], Path], value: str) -> None:
    text = GOOD.replace("  settle", f"  let x = {value}\n  settle").replace(
        "expect path", "expect x == 3\n  expect path"
    )
    ran = prove(write("good.proof", text))
    assert ran.code in (1, 3, 4) if value != 'len("ab") + 1' else ran.code == 0, ran


@pytest.mark.parametrize(("counted_as", "code"), [("pass", 0), ("fail", 1), ("keep", 3)])
def test_inconclusive_option_sets_exit_code(
    prove: Prove, proof: Callable[..., Path], counted_as: str, code: int
) -> None:
    ran = prove(proof("duration(nobody) < 1s"), f"--inconclusive={counted_as}")
    assert ran.code == code, ran
    assert "1 inconclusive" in ran.out


# ## run: selection and variables


@pytest.mark.parametrize(
    ("selection", "ran_proofs"),
    [
        (["-k", "SECOND"], ["second"]),
        (["--tag", "a", "--tag", "z"], ["first"]),
        ([], ["first", "second"]),
    ],
)
def test_proofs_are_selected_by_keyword_or_tag(
    prove: Prove, proof: Callable[..., Path], selection: list[str], ran_proofs: list[str]
) -> None:
    paths = [
        proof("response.status == 200", name=name, tag=tag, path="/silent")
        for name, tag in (("first", "a"), ("second", "b"))
    ]
    ran = prove(*paths, *selection)
    assert ran.code == 0, ran
    assert re.findall(r"PASS  \w+\.proof::(\w+)", ran.out) == ran_proofs


def test_empty_selection_exits_with_5(spanproof: Command, proof: Callable[..., Path]) -> None:
    ran = spanproof("run", proof("response.status == 200"), "-k", "no such proof", *FREE_PORTS)
    assert (ran.code, ran.err) == (5, "spanproof: no proof is selected\n")


def test_folder_without_proofs_exits_with_5(spanproof: Command, tmp_path: Path) -> None:
    ran = spanproof("run", tmp_path, *FREE_PORTS)
    assert (ran.code, ran.err) == (5, f"spanproof: no proof file in {tmp_path}\n")


def test_var_option_sets_variable(prove: Prove, write: Callable[[str, str], Path], service: Service) -> None:
    path = write("good.proof", GOOD.replace('env("BASE_URL")', '"http://127.0.0.1:1"'))
    ran = prove(path, "--var", f"base={service.base_url}")
    assert ran.code == 0, ran


def test_var_option_without_value_is_rejected(spanproof: Command, proof: Callable[..., Path]) -> None:
    ran = spanproof("run", proof("response.status == 200"), "--var", "base", *FREE_PORTS)
    assert (ran.code, ran.err) == (2, "spanproof: --var is NAME=VALUE, not 'base'\n")


@pytest.mark.parametrize(("options", "requests"), [([], 2), (["--fail-fast"], 1)])
def test_fail_fast_skips_remaining_proofs(
    prove: Prove, proof: Callable[..., Path], service: Service, options: list[str], requests: int
) -> None:
    paths = [proof("response.status == 201", name=name, path="/silent") for name in ("first", "second")]
    ran = prove(*paths, *options)
    assert ran.code == 1, ran
    assert len(service.requests) == requests


# ## run: errors before the start


def test_syntax_error_exits_with_2_and_shows_position(spanproof: Command, proof: Callable[..., Path]) -> None:
    ran = spanproof("run", proof("response.status = 200"), *FREE_PORTS)
    assert ran.code == 2
    assert ran.out == (
        "error[single-equals]: a comparison is written `==`\n"
        "  --> p.proof:4:26\n"
        "   |\n"
        "4  |   expect response.status = 200\n"
        "   |                          ^\n"
        "   = help: write `==` in place of `=`\n\n"
    )


def test_all_files_with_problems_are_shown(spanproof: Command, proof: Callable[..., Path]) -> None:
    paths = [proof("respons.status == 200", name="one"), proof("count(shop)", name="two")]
    ran = spanproof("run", *paths, *FREE_PORTS)
    assert ran.code == 2
    assert "one.proof:4:10" in ran.out
    assert "two.proof:4:10" in ran.out


@pytest.mark.parametrize("option", ["--otlp-grpc", "--otlp-http"])
def test_address_in_use_exits_with_2(spanproof: Command, proof: Callable[..., Path], option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ran = spanproof("run", proof("response.status == 200"), *FREE_PORTS, option, address)
    assert ran.code == 2
    assert re.fullmatch(rf"spanproof: {address} is in use; .*\n", ran.err)


@pytest.mark.parametrize("option", ["--otlp-grpc", "--otlp-http"])
def test_invalid_address_exits_with_2(spanproof: Command, proof: Callable[..., Path], option: str) -> None:
    ran = spanproof("run", proof("response.status == 200"), *FREE_PORTS, option, "nonsense")
    assert ran.code == 2
    assert re.fullmatch(r"spanproof: 'nonsense' is not an address; .*\n", ran.err)


@pytest.mark.parametrize("command", ["run", "check", "case"])
def test_missing_file_exits_with_2(spanproof: Command, command: str) -> None:
    ran = spanproof(command, "absent.proof")
    assert ran.code == 2
    assert re.fullmatch(r"spanproof: .*absent\.proof.*\n", ran.err)


@pytest.mark.parametrize("command", ["run", "check", "case"])
def test_binary_file_exits_with_2(spanproof: Command, tmp_path: Path, command: str) -> None:
    (tmp_path / "bad.proof").write_bytes(b"\xff\xfe\x00")
    ran = spanproof(command, "bad.proof")
    assert ran.code == 2
    assert re.fullmatch(r"spanproof: .*bad\.proof.*\n", ran.err)


def test_invalid_store_exits_with_2(spanproof: Command, proof: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "spans.duckdb").write_text("this is no database " * 100)
    ran = spanproof("run", proof("response.status == 200"), "--db", "spans.duckdb", *FREE_PORTS)
    assert ran.code == 2
    assert re.fullmatch(r"spanproof: spans\.duckdb .*name another file\n", ran.err)


# ## Stored traces


def test_stored_trace_is_drawn(prove: Prove, proof: Callable[..., Path], spanproof: Command) -> None:
    ran = prove(proof("path shop -> nobody"), "--db", "spans.duckdb")
    trace_id = re.search(r"= trace ([0-9a-f]{32})", ran.out)[1]
    for id_ in (trace_id, trace_id.upper()):
        drawn = spanproof("trace", id_, "--db", "spans.duckdb")
        assert drawn.code == 0, drawn
        assert [re.sub(r"[·█]{26} .*", "", line).split() for line in drawn.out.splitlines()] == [
            ["shop", "GET", "/hello"],
            ["└", "shop", "GET"],
            ["└", "bank", "GET", "/transfers"],
        ]


def test_span_without_end_is_drawn_as_not_ended(spanproof: Command, tmp_path: Path) -> None:
    with Store.open(tmp_path / "spans.duckdb") as store:
        inner = StoredSpan("shop", "work", id_=2, parent=1, kind="internal", ms=(5, None))
        append(store, StoredSpan("shop", "GET /"), inner)
    drawn = spanproof("trace", f"{1:032x}", "--db", "spans.duckdb")
    assert drawn.out == (
        f"      shop   GET / {'█' * 26}     10 ms\n      └ shop work  {'·' * 13}{'░' * 13} not ended\n"
    )


@pytest.mark.parametrize("trace_id", ["", "abc", "g" * 32, "0" * 31, "0" * 33])
def test_invalid_trace_id_is_rejected(spanproof: Command, trace_id: str) -> None:
    ran = spanproof("trace", trace_id, "--db", "spans.duckdb")
    assert (ran.code, ran.err) == (2, f"spanproof: {trace_id!r} is not a trace id: 32 hexadecimal digits\n")


def test_unknown_trace_is_not_found(spanproof: Command, start: Starter) -> None:
    serving = start(*SERVE, "--db", "spans.duckdb")
    serving.read_line()
    serving.signal(signal.SIGTERM)
    serving.finish()
    ran = spanproof("trace", "0" * 31 + "1", "--db", "spans.duckdb")
    assert (ran.code, ran.err) == (1, f"spanproof: no span of trace {'0' * 31}1 is stored\n")


def test_trace_requires_existing_file(spanproof: Command, tmp_path: Path) -> None:
    ran = spanproof("trace", "1" * 32, "--db", "absent.duckdb")
    assert (ran.code, ran.err) == (2, "spanproof: absent.duckdb: no such file\n")
    assert list(tmp_path.iterdir()) == []


# ## check


def test_valid_files_pass_check(spanproof: Command, write: Callable[[str, str], Path]) -> None:
    ran = spanproof("check", write("good.proof", GOOD), write("crlf.proof", GOOD.replace("\n", "\r\n")))
    assert (ran.code, ran.out) == (0, "2 files, 2 proofs, 0 problems\n")


def test_check_finds_all_problems(spanproof: Command, proof: Callable[..., Path]) -> None:
    ran = spanproof("check", proof("count(shop) > 5ms\n  expect nonsense(shop) == 1"))
    assert ran.code == 2
    assert re.findall(r"error\[([\w-]+)\]", ran.out) == ["type-mismatch", "unknown-function"]
    assert ran.out.endswith("1 file, 1 proof, 2 problems\n")
