"""`spanproof migrate`: the written files, and atomicity in case of errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spanproof.api.cli.main import app
from spanproof.tests.command import Finished

REAL = Path(__file__).parents[2] / "query_lang" / "tracetest" / "definitions"
GET, LIST, ADS = REAL / "product-catalog/get.yaml", REAL / "product-catalog/list.yaml", REAL / "ad/get.yaml"

DEFINITION = """\
type: Test
spec:
  id: hello
  name: Hello is answered
  trigger:
    type: http
    httpRequest:
      url: ${var:BASE_URL}/hello
  specs:
  - name: It is paid
    selector: span[tracetest.span.type="general" name="Tracetest trigger"]
    assertions:
    - attr:tracetest.response.status = 200
    - attr:tracetest.response.body | json_path '$.state' = "paid"
  - name: The bank is called once
    selector: span[tracetest.span.type="http" service.name="bank" name="GET /transfers" kind="server"]
    assertions:
    - attr:tracetest.selected_spans.count = 1
    - attr:http.response.status_code = 200
    - attr:tracetest.span.duration < 5s
  - name: The shop fails
    selector: span[service.name="shop" kind="server"]
    assertions:
    - attr:http.response.status_code >= 500
"""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def migrate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["migrate", "tracetest", *map(str, arguments)])


def proofs() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_printed_proof_passes_check() -> None:
    printed = migrate(GET)
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert printed.stdout.startswith('let PRODUCT_CATALOG_ADDR = env("PRODUCT_CATALOG_ADDR")\n')
    Path("get.proof").write_text(printed.stdout)
    assert CliRunner().invoke(app, ["check", "get.proof"]).exit_code == 0
    assert CliRunner().invoke(app, ["fmt", "--check", "get.proof"]).exit_code == 0


def test_converted_test_judges_real_trace(prove: Callable[..., Finished]) -> None:
    Path("hello.yaml").write_text(DEFINITION)
    assert migrate("hello.yaml", "-o", "hello.proof").exit_code == 0
    ran = prove("hello.proof", "--tag", "hello")
    assert ran.code == 1
    assert "Hello is answered   4 passed, 1 failed" in ran.out
    assert "✗ The shop fails" in ran.out


def test_rejected_construct_is_shown_with_position() -> None:
    refused = migrate(LIST)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "`json_path '$.products[*].id'` has no equivalent in a proof" in refused.stderr
    assert f"{LIST}:26:48\n" in refused.stderr


def test_several_files_are_written_to_folder() -> None:
    ran = migrate(GET, LIST, ADS, "--output", "proofs")
    assert (ran.exit_code, ran.stdout) == (1, "3 files, 2 converted, 1 refused\n")
    assert proofs() == ["proofs/ad/get.proof", "proofs/product-catalog/get.proof"]


def test_existing_file_requires_force() -> None:
    Path("get.proof").write_text("mine")
    refused = migrate(GET, "-o", "get.proof")
    assert (refused.exit_code, Path("get.proof").read_text()) == (2, "mine")
    assert refused.stderr == "spanproof: get.proof: the file exists; --force replaces it\n"
    assert migrate(GET, "-o", "get.proof", "--force").exit_code == 0
    assert Path("get.proof").read_text().startswith("let ")
    assert migrate(LIST, "-o", "list.proof").exit_code == 1
    assert proofs() == ["get.proof"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GET, ADS), "several files become several proofs: name a folder with --output"),
        ((GET, "none.yaml", "-o", "p"), "none.yaml: No such file or directory"),
        ((GET, GET, "-o", "p"), "two files would be written to p/get.proof"),
        ((GET, ADS, "-o", "a-file"), "a-file: several proofs need a folder, and this is a file"),
        ((GET, "-o", "a-file/x.proof"), "a-file/x.proof: File exists"),
    ],
)
def test_invalid_arguments_write_nothing(arguments: tuple[object, ...], message: str) -> None:
    Path("a-file").write_text("mine")
    ran = migrate(*arguments)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (2, "", f"spanproof: {message}\n")
    assert proofs() == ["a-file"]
