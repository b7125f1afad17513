"""Proofs stored on a server: listing, use by runs and gates, confinement to their folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from spanproof.collector.storage.store import Store
from spanproof.tests.api.http.gateway import make_service_requests, store_requests
from spanproof.tests.api.stored_traces import open_client
from spanproof.tests.command import FREE, FREE_PORTS, Finished, Running, find_address

ENOUGH = 'proof "enough" {\n  given traces from gateway over last 1h\n  expect count(gateway) >= 100\n}\n'
LIBRARY = "define many(svc, least) {\n  expect count(svc) >= least\n}\n"
USES = 'use "{}"\nproof "many" {{\n  given traces from gateway over last 1h\n  apply many(gateway, 1000)\n}}\n'
Write = Callable[[str, str], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "proofs").mkdir()
    return tmp_path / "proofs"


@pytest.fixture
def client(tmp_path: Path, folder: Path) -> Iterator[httpx.Client]:
    store_requests(tmp_path / "spans.duckdb", make_service_requests("gateway", 200))
    with Store.open(tmp_path / "spans.duckdb") as opened, open_client(opened, folder) as client:
        client.timeout = httpx.Timeout(60)
        yield client


def run(client: httpx.Client, stored: str, **more: object) -> httpx.Response:
    return client.post("/api/v1/runs", params={"wait": "60s"}, json={"stored": stored, **more})


def list_stored(client: httpx.Client) -> dict[str, tuple[list[str], str | None]]:
    listed = client.get("/api/v1/proofs/stored").json()
    return {each["stored"]: (each["proofs"], each["problem"]) for each in listed}


def test_stored_proof_is_read_at_each_run(
    client: httpx.Client, write: Write, spanproof: Callable[..., Finished]
) -> None:
    assert list_stored(client) == {}
    write("proofs/shop/enough.proof", ENOUGH)
    assert list_stored(client) == {"shop/enough.proof": (["enough"], None)}
    answer = run(client, "shop/enough.proof")
    assert answer.status_code == 201
    (proof,) = answer.json()["proofs"]
    assert (proof["path"], proof["name"], proof["outcome"]) == ("shop/enough.proof", "enough", "pass")

    by_version = 'let version = "0"\n' + ENOUGH.replace("last 1h", "last 1h where resource.service.version == version")
    write("proofs/shop/enough.proof", by_version)
    gate = client.post("/api/v1/gate", json={"stored": "shop/enough.proof", "name": "release 7"}).json()
    assert (gate["outcome"], gate["exit_code"], gate["run"]["proofs"][0]["path"]) == ("inconclusive", 3, "release 7")
    assert run(client, "shop/enough.proof", variables={"version": "1.4.2"}).json()["outcome"] == "pass"
    options = ("--server", client.base_url, "--var", "version=1.4.2")
    finished = spanproof("gate", "--stored", "shop/enough.proof", *options)
    assert (finished.code, finished.out.splitlines()[0]) == (0, "PASS shop/enough.proof::enough"), finished
    finished = spanproof("gate", "--stored", "none.proof", *options)
    assert (finished.code, finished.out) == (2, "")
    assert "there is no stored proof none.proof" in finished.err
    write("proofs/environment.proof", 'let version = env("VERSION")\n' + ENOUGH)
    finished = spanproof("gate", "--stored", "environment.proof", *options)
    assert (finished.code, finished.err) == (2, "")
    assert finished.out.startswith(
        "error[not-allowed]: `env` is not allowed in a proof that a server runs\n"
        " --> environment.proof:1:15\n"
        '  = help: declare `let base = "…"` and set it with --var\n'
    )
    for given in ((), ("a.proof", "--stored", "shop/enough.proof")):
        assert spanproof("gate", *given, *options).err.startswith("spanproof: give either PROOF, a file, or --stored, ")


def test_stored_proof_uses_files_of_its_folder_only(client: httpx.Client, write: Write, tmp_path: Path) -> None:
    write("proofs/lib/common.proof", LIBRARY)
    write("proofs/a.proof", USES.format("lib/common.proof"))
    assert list_stored(client) == {"a.proof": (["many"], None), "lib/common.proof": ([], None)}
    (verdict,) = run(client, "a.proof").json()["proofs"][0]["verdicts"]
    assert (verdict["outcome"], verdict["position"]["path"]) == ("fail", "lib/common.proof")
    assert run(client, "lib/common.proof").json()["detail"] == "the text contains no proof"

    write("outside.proof", LIBRARY)
    (tmp_path / "proofs" / "linked.proof").symlink_to("../outside.proof")
    for used in ("../outside.proof", str(tmp_path / "outside.proof"), "linked.proof"):
        write("proofs/a.proof", USES.format(used))
        (diagnostic, *_) = run(client, "a.proof").json()["diagnostics"]
        assert (diagnostic["id"], diagnostic["line"]) == ("not-allowed", 1), used


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("nowhere.proof", 404),
        ("../outside.proof", 404),
        ("sub/../enough.proof", 404),
        ("./enough.proof", 404),
        ("{folder}/enough.proof", 404),
        ("{folder}/../outside.proof", 404),
        ("out.proof", 404),  # a link to a file outside
        ("away/outside.proof", 404),  # through a link to a folder outside
        ("circle.proof", 404),
        (".hidden.proof", 404),
        ("notes.txt", 404),
        ("folder.proof", 404),
        ("x" * 999, 404),
        ("in.proof", 201),  # a link to a file inside
        ("enough.proof", 201),
        ("latin.proof", 422),
    ],
)
def test_names_cannot_leave_the_folder(
    client: httpx.Client, write: Write, folder: Path, name: str, status: int
) -> None:
    for path in (
        "outside.proof",
        "proofs/enough.proof",
        "proofs/.hidden.proof",
        "proofs/notes.txt",
        "proofs/sub/b.proof",
    ):
        write(path, ENOUGH)
    (folder / "folder.proof").mkdir()
    (folder / "latin.proof").write_bytes(b"# caf\xe9\n")
    links = {"out.proof": "../outside.proof", "away": "..", "circle.proof": "circle.proof", "in.proof": "enough.proof"}
    for link, target in links.items():
        (folder / link).symlink_to(target)
    answer = run(client, name.format(folder=folder))
    assert answer.status_code == status, answer.text
    assert list_stored(client) == {
        "enough.proof": (["enough"], None),
        "in.proof": (["enough"], None),
        "latin.proof": ([], "latin.proof: not UTF-8 text"),
        "sub/b.proof": (["enough"], None),
    }


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ('proof "p" {\n  when GET "http://127.0.0.1:9/"\n  expect response.status == 200\n}\n', "not-allowed"),
        ('proof "p" {\n  when run "id"\n  expect some a\n}\n', "not-allowed"),
        ('use "runs.proof"\n' + ENOUGH, "broken-use"),
        (ENOUGH.replace("100", "1ms"), "type-mismatch"),
    ],
)
def test_stored_proof_has_limits_of_submitted_ones(client: httpx.Client, write: Write, text: str, id_: str) -> None:
    write("proofs/runs.proof", 'let home = env("HOME")\n')
    write("proofs/p.proof", text)
    refused = run(client, "p.proof")
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    problem = refused.json()
    assert problem["diagnostics"][0]["id"] == id_
    assert list_stored(client)["p.proof"][1] == problem["detail"]


def test_request_contains_either_text_or_name(client: httpx.Client, write: Write) -> None:
    write("proofs/enough.proof", ENOUGH)
    for document in ({"proof": ENOUGH, "stored": "enough.proof"}, {}, {"variables": {"a": "1"}}):
        for path in ("/api/v1/runs", "/api/v1/gate"):
            refused = client.post(path, json=document)
            assert (refused.status_code, refused.json()["title"]) == (422, "invalid request")
            assert refused.json()["detail"].startswith("give either `proof`, a text, or `stored`")
    for value in ("", None, 1):
        assert client.post("/api/v1/runs", json={"stored": value}).status_code == 422


def test_server_without_folder_lists_none(tmp_path: Path) -> None:
    with Store.open() as opened, open_client(opened) as client:
        assert list_stored(client) == {}
        refused = run(client, "enough.proof")
        assert (refused.status_code, refused.json()["detail"]) == (404, "there is no stored proof enough.proof")


def test_serve_reads_folder_option(
    start: Callable[..., Running], spanproof: Callable[..., Finished], write: Write
) -> None:
    write("proofs/enough.proof", ENOUGH)
    line = start("serve", "--db", ":memory:", *FREE_PORTS, "--api", FREE, "--proofs", "proofs").read_line()
    with httpx.Client(base_url=f"http://{find_address(line, 'API')}", trust_env=False, timeout=60) as client:
        assert list_stored(client) == {"enough.proof": (["enough"], None)}
        assert run(client, "enough.proof").json()["outcome"] == "inconclusive"
    missing = spanproof("serve", *FREE_PORTS, "--api", FREE, "--proofs", "nowhere")
    assert (missing.code, missing.err) == (2, "spanproof: --proofs: nowhere: no such folder\n")
