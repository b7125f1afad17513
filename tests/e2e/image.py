"""Builder of a Dockerfile without Docker: each stage in a directory and a virtual environment of its own.

It supports only the instructions that the repository's Dockerfile uses.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, with its options (`--name=value`) separated from the rest."""

    name: str
    options: dict[str, str]
    rest: str


@dataclass(slots=True)
class Stage:
    """The state of one build stage."""

    root: Path
    venv: Path
    workdir: Path
    env: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    user: tuple[int, int] | None = None
    ports: tuple[int, ...] = ()
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"{self.venv / 'bin'}:/usr/local/bin:/usr/bin:/bin"


def parse(text: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    instructions = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, rest = line.split(maxsplit=1)
        options = {}
        while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            options[match[1]] = match[2]
            rest = rest[match.end() :]
        instructions.append(Instruction(name, options, rest.strip()))
    return instructions


class Builder:
    """Builds the stages of a Dockerfile below `base` from the files of `context`; `arguments` set its ARGs."""

    def __init__(self, context: Path, base: Path, python: str, **arguments: str) -> None:
        self._context = context
        self._arguments = arguments
        self._base = base
        self._python = python
        self._stages: dict[str, Stage] = {}

    def build(self, instructions: list[Instruction]) -> Stage:
        """Execute the instructions; return the last stage."""
        stage = None
        for instruction in instructions:
            if instruction.name == "FROM":
                stage = self._start_stage(instruction.rest)
            else:
                assert stage is not None
                getattr(self, f"_do_{instruction.name.lower()}")(stage, instruction)
        assert stage is not None
        return stage

    def _start_stage(self, rest: str) -> Stage:
        name = rest.partition(" AS ")[2] or str(len(self._stages))
        root = self._base / name / "root"
        root.mkdir(parents=True)
        venv = self._base / name / "venv"
        subprocess.run([self._python, "-m", "venv", venv], check=True)
        self._stages[name] = Stage(root, venv, workdir=root)
        return self._stages[name]

    def _do_workdir(self, stage: Stage, instruction: Instruction) -> None:
        stage.workdir = locate(stage, instruction.rest)
        stage.workdir.mkdir(parents=True, exist_ok=True)

    def _do_copy(self, stage: Stage, instruction: Instruction) -> None:
        *sources, target = instruction.rest.split()
        folder = locate(stage, target)
        origin = self._stages[instruction.options["from"]] if "from" in instruction.options else None
        ignored = [] if origin else (self._context / ".dockerignore").read_text().splitlines()
        for name in sources:
            source = locate(origin, name) if origin else self._context / name
            if source.is_dir():
                shutil.copytree(source, folder, ignore=_Ignore(source, ignored), dirs_exist_ok=True)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder)

    def _do_run(self, stage: Stage, instruction: Instruction) -> None:
        command = localize(stage, instruction.rest)
        if os.getuid() != 0:  # only root can create files of another owner
            command = re.sub(r"--owner=\d+ --group=\d+", f"--owner={os.getuid()} --group={os.getgid()}", command)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        subprocess.run(
            ["/bin/sh", "-ec", command],
            cwd=stage.workdir,
            env=environment | stage.arguments | stage.env | {"PATH": stage.path},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def _do_arg(self, stage: Stage, instruction: Instruction) -> None:
        name, _, default = instruction.rest.partition("=")
        stage.arguments[name] = self._arguments.get(name, default.strip('"'))

    def _do_env(self, stage: Stage, instruction: Instruction) -> None:
        stage.env |= dict(item.split("=", 1) for item in shlex.split(instruction.rest))

    def _do_user(self, stage: Stage, instruction: Instruction) -> None:
        user, group = instruction.rest.split(":")
        stage.user = (int(user), int(group))

    def _do_volume(self, stage: Stage, instruction: Instruction) -> None:
        locate(stage, instruction.rest).mkdir(exist_ok=True)

    def _do_expose(self, stage: Stage, instruction: Instruction) -> None:
        stage.ports = tuple(int(port) for port in instruction.rest.split())

    def _do_healthcheck(self, stage: Stage, instruction: Instruction) -> None:
        stage.healthcheck = json.loads(instruction.rest.removeprefix("CMD "))

    def _do_cmd(self, stage: Stage, instruction: Instruction) -> None:
        stage.command = json.loads(instruction.rest)


class _Ignore:
    """The paths excluded by .dockerignore, as an `ignore` function for `shutil.copytree`."""

    def __init__(self, root: Path, patterns: list[str]) -> None:
        self._root = root
        self._patterns = [line for line in patterns if line and not line.startswith("#")]

    def __call__(self, folder: Any, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(self._root)
        return {name for name in names if any(_matches(inside / name, pattern) for pattern in self._patterns)}


def _matches(path: Path, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(path.name, pattern.removeprefix("**/"))
    return len(path.parts) == 1 and fnmatch.fnmatch(path.name, pattern)


def locate(stage: Stage, path: str) -> Path:
    """Return the local path of a path inside the image."""
    return stage.root / path.removeprefix("/") if path.startswith("/") else stage.workdir / path


def localize(stage: Stage, text: str) -> str:
    """Replace paths of the image's own folders in a command by their local paths."""
    return re.sub(r"(?<![\w./])/(src|dist|data)(?![\w.])", lambda match: str(locate(stage, match[0])), text)
