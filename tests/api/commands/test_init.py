"""`spanproof init`: a first proof, written from the trace of one request."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spanproof.api.cli.main import app
from spanproof.assertions.run.exploration import derive_claims, write_duration_claim, write_operation, write_paths
from spanproof.collector.calls.derivation import derive_calls
from spanproof.collector.storage.store import Store
from spanproof.tests.api.stored_traces import StoredSpan, append, trace_id
from spanproof.tests.command import FREE_PORTS, Finished, Running, Service, find_address, open_service
from spanproof.tests.ports import find_free_address

Starter = Callable[..., Running]
Prove = Callable[..., Finished]
FIRST = Path("first.proof")
WRITTEN = """\
let base = env("BASE_URL") or "URL"

proof "GET /hello" {
  when GET "{base}/hello"

  expect response.status == 200
  expect path shop -> bank
  expect no span has error
  expect duration(shop "GET /hello") < LIMIT
}
"""


def init(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["init", *arguments])


@pytest.fixture
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_written_proof_passes(start: Starter, prove: Prove, tmp_path: Path) -> None:
    with open_service() as service:
        running = start("init", f"{service.base_url}/hello", *FREE_PORTS)
        service.export_to(find_address(running.read_line(), "HTTP"))
        ran = running.finish()
    assert (ran.code, ran.err) == (0, "")
    assert "3 spans arrived from bank, shop\nfirst.proof is written." in ran.out
    text = re.sub(r"< \d+m?s  # it took [0-9.]+ m?s", "< LIMIT", (tmp_path / FIRST).read_text())
    assert text == WRITTEN.replace('"URL"', f'"{service.base_url}"')
    ran = prove(FIRST)
    assert (ran.code, "4 passed" in ran.out) == (0, True), ran


@pytest.mark.usefixtures("_empty_folder")
def test_without_spans_proof_covers_response_only(service: Service) -> None:
    ran = init(f"{service.base_url}/silent", "--within", "50ms", "-o", "silent.proof", *FREE_PORTS)
    assert (ran.exit_code, ran.stderr) == (3, "")
    http, grpc = find_address(ran.stdout, "HTTP"), find_address(ran.stdout, "gRPC")
    assert (
        f"no span arrived within 50ms: start the services with OTEL_EXPORTER_OTLP_ENDPOINT=http://{http}"
        f" OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or with http://{grpc} and grpc\n"
    ) in ran.stdout
    text = Path("silent.proof").read_text()
    assert "  expect response.status == 200\n  expect response.duration < 100ms  # it took" in text


@pytest.mark.usefixtures("_empty_folder")
@pytest.mark.parametrize(
    ("options", "name", "when"),
    [
        ((), "GET /a", 'when GET "{base}/a?b=1"'),
        (("--method", "delete"), "DELETE /a", 'when DELETE "{base}/a?b=1"'),
        (
            ("--json", '{"n": 1.50, "l": [null, "x{y}"]}'),
            "POST /a",
            'when POST "{base}/a?b=1" {\n    json { "n": 1.50, "l": [null, "x\\{y}"] }\n  }',
        ),
        (("-X", "PUT", "--json", "[]"), "PUT /a", 'when PUT "{base}/a?b=1" {\n    json []\n  }'),
    ],
)
def test_no_send_writes_proof(options: tuple[str, ...], name: str, when: str) -> None:
    ran = init("https://127.0.0.1:1/a?b=1#c", "--no-send", *options)
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert FIRST.read_text() == (
        f'let base = env("BASE_URL") or "https://127.0.0.1:1"\n\nproof "{name}" {{\n  {when}\n\n'
        "  expect response.status == 200\n}\n"
    )
    checked = CliRunner().invoke(app, ["check", "first.proof"])
    assert (checked.exit_code, checked.stdout) == (0, "1 file, 1 proof, 0 problems\n")


@pytest.mark.usefixtures("_empty_folder")
def test_existing_file_is_kept() -> None:
    FIRST.write_text("mine")
    ran = init("http://127.0.0.1:1/", "--no-send")
    assert (ran.exit_code, FIRST.read_text()) == (2, "mine")
    assert ran.stderr == "spanproof: first.proof: the file exists; --output names another one\n"


@pytest.mark.usefixtures("_empty_folder")
def test_failed_request_writes_nothing() -> None:
    ran = init(f"http://{find_free_address()}/", *FREE_PORTS)
    assert (ran.exit_code, FIRST.exists()) == (2, False)
    assert "Connection refused; --no-send writes a proof without a request\n" in ran.stderr


@pytest.mark.usefixtures("_empty_folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:8080",), "'localhost:8080' is not a URL; write it as http://127.0.0.1:8080/orders"),
        (
            ("http://127.0.0.1:99999/",),
            "'http://127.0.0.1:99999/' is not a URL; write it as http://127.0.0.1:8080/orders",
        ),
        (("http://ann:secret@x/",), "leave the password out of the URL: the proof would contain it"),
        (("http://x/", "--json", "{a}"), "--json is not JSON at column 2: '{a}'"),
        (("http://x/", "--json", "[1e99]"), "--json is not JSON: '[1e99]'"),
        (("http://x/", "-X", "GOT"), "--method is one of GET, HEAD, "),
        (("http://x/", "--within", "soon"), "`soon` is not a duration"),
        (("http://x/", "--within", "0s"), "--within must be more than 0s"),
        (("http://x/", "--output", "none/x.proof"), "none: no such folder"),
        (("http://x/", "--otlp-grpc", "0.0.0.0:0"), "0.0.0.0:0 can be reached from other machines; init accepts only"),
        (("http://x/", "--otlp-http", "here"), "'here' is not an address"),
    ],
)
def test_invalid_arguments_write_nothing(arguments: tuple[str, ...], message: str) -> None:
    ran = init(*arguments)
    assert (ran.exit_code, ran.stdout, list(Path().iterdir())) == (2, "", [])
    assert ran.stderr.startswith(f"spanproof: {message}")


@pytest.mark.parametrize(
    ("hops", "paths"),
    [
        ([], ()),
        ([(1, False, "b", None)], ("a -> b",)),
        ([(1, False, "b", 2), (1, False, "retry", None), (1, False, "b", 3), (3, False, "c c", 4)],
         ('a -> { b -> "c c", "retry" }',)),
        ([(1, False, "b", 2), (1, True, "m", 3), (2, True, "n", 4)], ("a -> b ~> n", "a ~> m")),
        ([(1, False, "b", 2), (2, False, "a", 1)], ("a -> b -> a",)),
    ],
)  # fmt: skip
def test_hops_become_paths(hops: list[tuple[int, bool, str, int | None]], paths: tuple[str, ...]) -> None:
    assert write_paths(hops, 1, "a") == paths


def test_request_without_end_gets_no_duration_claim() -> None:
    with Store.open() as store:
        append(store, StoredSpan("shop", "GET /", ms=(0, None)))
        derive_calls(store)
        with store.cursor() as connection:
            connection.execute("CREATE TEMP TABLE judged AS SELECT DISTINCT trace_id FROM topology")
            claims = list(derive_claims(connection, trace_id(1), any_error=False))
    assert claims == ['count(shop "GET /") == 1', "no span has error"]


def test_limits_are_rounded_and_operations_escaped() -> None:
    limits = [
        write_duration_claim("x", ms * 1_000_000).partition(" < ")[2].partition(" ")[0] for ms in (1, 34, 70, 334, 9000)
    ]
    assert limits == ["100ms", "200ms", "500ms", "2s", "50s"]
    assert [write_operation(name) for name in ('GET /{id} "', "GET /{base}")] == ['"GET /{id} \\""', '"GET /\\{base}"']
