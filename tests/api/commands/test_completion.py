"""`spanproof completion` in real shells."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spanproof.api.cli.command_tree import read_commands
from spanproof.api.cli.main import app
from spanproof.api.commands.completion import SHELLS
from spanproof.tests.command import DEADLINE_S

# the typed text before the tab key, and the completed word
TYPED = [
    ("mig", "migrate "),
    ("migrate tra", "tracetest "),
    ("run --fail-f", "--fail-fast "),
    ("run --inconclusive ke", "keep "),
    ("migrate tracetest --ou", "--output "),
    ("check a-pr", "a-proof.proof"),
    ("run --db a-pr", "a-proof.proof"),
    ("completion ba", "bash "),
]
BEGIN = {
    "bash": (["--norc", "--noprofile", "-i"], "source ./script; PS1='rea''dy> '; bind 'set bell-style none'"),
    "zsh": (["-f", "-i"], "autoload -U compinit; compinit -u -D; source ./script; PS1='rea''dy> '"),
}


def find_shell(name: str) -> str:
    """Return the path of a shell; skip the test if it is not installed."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("TESTS_REQUIRE_ALL"):
            pytest.fail(f"{name} is required by this test")
        pytest.skip(f"{name} is required by this test")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a proof file whose name is completed."""
    (tmp_path / "a-proof.proof").touch()
    return tmp_path


def write_script(shell: str, folder: Path) -> None:
    printed = CliRunner().invoke(app, ["completion", shell])
    assert (printed.exit_code, printed.stderr) == (0, "")
    (folder / "script").write_text(printed.stdout)


class Terminal:
    """An interactive shell in a pseudo-terminal."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest = ""

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def read_until(self, text: str) -> None:
        """Read the output until `text` appears."""
        shown, deadline = self._rest, time.monotonic() + DEADLINE_S
        while text not in shown:
            ready, _, _ = select.select([self.descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"expected {text!r}, but the shell printed {shown!r}"
            shown += os.read(self.descriptor, 65536).decode(errors="replace")
        _, _, self._rest = shown.partition(text)


@contextmanager
def open_shell(shell: str, folder: Path) -> Iterator[Terminal]:
    options, begin = BEGIN[shell]
    program = find_shell(shell)
    write_script(shell, folder)
    controlling, terminal = pty.openpty()
    env = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        [program, *options], cwd=folder, env=env, stdin=terminal, stdout=terminal, stderr=terminal,
        start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    try:
        opened = Terminal(controlling)
        opened.type(f"{begin}; echo be''gun\r")
        opened.read_until("begun")
        yield opened
    finally:
        process.kill()
        process.wait()
        os.close(controlling)


@pytest.mark.parametrize("shell", BEGIN)
def test_shells_complete_words(shell: str, folder: Path) -> None:
    with open_shell(shell, folder) as terminal:
        terminal.read_until("ready> ")
        for typed, wanted in TYPED:
            terminal.type(f"spanproof {typed}\t")
            begun = typed.rsplit(" ", 1)[-1]
            terminal.read_until(wanted.removeprefix(begun))
            terminal.type("\x15")  # Ctrl-U empties the line


def test_fish_completes_words(folder: Path) -> None:
    program = find_shell("fish")
    write_script("fish", folder)
    queries = "".join(f"echo '>' {typed!r}; complete -C 'spanproof {typed}'; " for typed, _ in TYPED)
    ran = subprocess.run(
        [program, "--no-config", "-c", f"source ./script; {queries}"],
        cwd=folder, env={"PATH": os.environ["PATH"], "HOME": str(folder)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = [each.split("\n", 1)[1] for each in ran.stdout.split("> ")[1:]]
    assert [answer.split()[0] for answer in answers] == [wanted.strip() for _, wanted in TYPED]


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_contain_all_commands_and_options(shell: str) -> None:
    script = SHELLS[shell](read_commands(app))
    for command in read_commands(app).walk():
        assert all(word in script for word in command.words)
        for option in command.options:
            for spelling in option.spellings:
                assert (f"-l {spelling[2:]}" if shell == "fish" and spelling[1] == "-" else spelling[1:]) in script


def test_unknown_shell_is_rejected() -> None:
    ran = CliRunner().invoke(app, ["completion", "cmd"])
    assert (ran.exit_code, ran.stderr) == (2, "spanproof: a shell is one of bash, fish, zsh, not 'cmd'\n")
