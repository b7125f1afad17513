"""Settings from `spanproof.toml` and variables: precedence, origins, positions of errors."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from spanproof.api.cli.main import COMMANDS, app
from spanproof.api.cli.setting_definitions import find_settings_file, list_options

FILE = """
db = "shared.duckdb"
proxy = ["envoy"]

[run]
workers = 4
fail-fast = true

[serve]
db = "serve.duckdb"
keep-for = "7d"

[migrate.tracetest]
output = "proofs"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def show(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, ["config", *arguments], env=env)


def read(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    return tomllib.loads(result.stdout)


def find_line(result: Result, key: str) -> str:
    (line,) = (line for line in result.stdout.splitlines() if line.removeprefix("# ").startswith(f"{key} = "))
    return line


def write(folder: Path, text: str) -> Path:
    path = folder / "spanproof.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_sets_options_of_its_commands(folder: Path) -> None:
    write(folder, FILE)
    shown = read(show())
    assert (shown["run"]["workers"], shown["run"]["fail-fast"], shown["run"]["db"]) == (4, True, "shared.duckdb")
    assert (shown["serve"]["db"], shown["serve"]["keep-for"]) == ("serve.duckdb", "7d")
    assert shown["run"]["proxy"] == shown["serve"]["proxy"] == ["envoy"]
    assert shown["migrate"]["tracetest"]["output"] == "proofs"


def test_command_line_overrides_environment_and_environment_overrides_file(folder: Path) -> None:
    write(folder, FILE)
    assert find_line(show("run", SPANPROOF_WORKERS="7"), "workers").split() == [
        "workers",
        "=",
        "7",
        "#",
        "SPANPROOF_WORKERS",
    ]
    assert read(show("run", SPANPROOF_RUN_DB="a", SPANPROOF_DB="b"))["run"]["db"] == "a"
    assert read(show("import", SPANPROOF_RUN_DB="a", SPANPROOF_DB="b"))["import"]["db"] == "b"
    (folder / "own.duckdb").touch()
    ran = CliRunner().invoke(
        app, ["export", "spans.jsonl", "--db", "missing.duckdb"], env={"SPANPROOF_DB": "own.duckdb"}
    )
    assert ran.stderr == "spanproof: missing.duckdb: no such file\n"


def test_origins_are_shown(folder: Path) -> None:
    path = write(folder, FILE)
    shown = show("run", SPANPROOF_RUN_TAG="smoke slow")
    assert find_line(shown, "workers").endswith(f"# {path}: run.workers")
    assert find_line(shown, "db").endswith(f"# {path}: db")
    assert find_line(shown, "retries").endswith("# default")
    assert find_line(shown, "tag").split() == ["tag", "=", '["smoke",', '"slow"]', "#", "SPANPROOF_RUN_TAG"]


def test_file_is_found_in_parent_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, FILE)
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_settings_file(Path.cwd()) == path
    assert read(show("run"))["run"]["workers"] == 4


def test_setting_applies_to_command(folder: Path) -> None:
    write(folder, '[check]\ndb = "missing.duckdb"\n')
    (folder / "a.proof").write_text('proof "a" {\n  given traces over last 1h\n  expect count(traces) > 1\n}\n')
    ran = CliRunner().invoke(app, ["check"])
    assert (ran.exit_code, ran.stderr) == (2, "spanproof: missing.duckdb: no such file\n")


def test_secret_is_masked(folder: Path) -> None:
    shown = show("run", SPANPROOF_RUN_SECRET="key=hunter2-hunter2")  # noqa: S106 (a secret of the test)
    assert "hunter2" not in shown.stdout
    assert "SPANPROOF_RUN_SECRET" in shown.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[run]\nwrokers = 4\n", "`run.wrokers` is not a setting; did you mean `run.workers`"),
        ("[rnu]\nworkers = 4\n", "`rnu` is not a setting; did you mean `run`"),
        ("run = 4\n", "`run` is a command; its options are a table: [run]"),
        (
            '[run]\nworkers = "many"\n',
            "run.workers: input should be a valid integer, unable to parse string as an integer",
        ),
        ("[run]\nworkers = 0\n", "run.workers: input should be greater than or equal to 1, not 0"),
        ("[run]\nfail-fast = 3\n", "run.fail-fast: input should be a valid boolean"),
        ("db = 3\n", "db: input should be a valid string, not 3"),
        ("[run\n", "Expected ']' at the end of a table declaration (at line 1, column 5)"),
    ],
)
def test_invalid_file_is_rejected_with_position(folder: Path, text: str, message: str) -> None:
    path = write(folder, text)
    for command in ("config", "check"):
        ran = CliRunner().invoke(app, [command])
        assert (ran.exit_code, ran.exception is not None) == (1, True)
        assert str(ran.exception).startswith(f"{path}: {message}")


def test_documentation_lists_keys_at_the_top_and_shows_the_real_error(folder: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[a-z-]+` ?)+) \| (.*) \|$", page.partition("| at the top |")[2], re.MULTILINE)
    documented = {key: set(re.findall("`(.*?)`", of)) for keys, of in rows for key in re.findall("`(.*?)`", keys)}
    shared: dict[str, set[str]] = {}
    for option in list_options(typer.main.get_command(app)):
        if option.shared_key is not None:
            shared.setdefault(option.shared_key, set()).add(option.command[0])
    assert documented == shared
    write(folder, "[run]\nworkrs = 4\n")
    (message,) = re.findall(r"^spanproof: /home/me/shop/spanproof.toml: (.*)$", page, re.MULTILINE)
    assert str(CliRunner().invoke(app, ["check"]).exception).endswith(f": {message}")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SPANPROOF_WROKERS", "4", "SPANPROOF_WROKERS is not a setting; did you mean `SPANPROOF_WORKERS`"),
        ("SPANPROOF_WORKERS", "many", "SPANPROOF_WORKERS: input should be a valid integer"),
        ("SPANPROOF_RUN_WORKERS", "0", "SPANPROOF_RUN_WORKERS: input should be greater than or equal to 1"),
    ],
)
def test_invalid_variable_is_rejected(folder: Path, variable: str, value: str, message: str) -> None:
    ran = CliRunner().invoke(app, ["check"], env={variable: value})
    assert str(ran.exception).startswith(message)


def test_variables_of_kubernetes_services_are_not_settings(folder: Path) -> None:
    links = {
        "SPANPROOF_SERVICE_HOST": "10.0.0.1",
        "SPANPROOF_PORT": "tcp://10.0.0.1:4317",
        "SPANPROOF_PORT_4317_TCP": "x",
    }
    assert read(show("run", **links))["run"]["workers"] == 1


def test_every_option_of_every_command_is_a_setting(folder: Path) -> None:
    from spanproof.api.cli.command_tree import read_commands

    settings = {(option.command, option.key) for option in list_options(typer.main.get_command(app))}
    for command in read_commands(app).walk():
        if command.words and not command.commands:
            for option in command.options:
                keys = {spelling.removeprefix("--") for spelling in option.spellings} | {"keyword"}
                assert option.spellings == ("--help",) or any((command.words, key) in settings for key in keys)
    assert {command for (command, *_), _ in settings} == {*COMMANDS} - {"case", "completion", "config"}
