"""Runner of a composite action's steps, with the features of GitHub's runner that this repository's action uses."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

EXPRESSION = re.compile(r"\$\{\{ (inputs|github)\.([\w-]+) \}\}")


class Runner:
    """A runner with a checkout in `workspace` and its own files in `temp`."""

    def __init__(self, action: Path, workspace: Path, temp: Path) -> None:
        self.action: dict[str, Any] = yaml.safe_load(action.read_text())
        self.temp = temp
        self.summary, self.output = temp / "summary.md", temp / "output"
        self._workspace = workspace
        self._github = {"action_path": str(action.parent)}

    def run_step(self, step: str, inputs: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the step of this name with inputs, or their defaults; reject undeclared inputs."""
        defaults = {name: str(declared.get("default", "")) for name, declared in self.action["inputs"].items()}
        assert inputs.keys() <= defaults.keys()
        values = {"inputs": defaults | inputs, "github": self._github}
        (definition,) = [each for each in self.action["runs"]["steps"] if each["name"] == step]
        assert "${{" not in definition["run"], "an input must not become a part of a command"

        def fill(text: str) -> str:
            filled = EXPRESSION.sub(lambda match: values[match[1]][match[2]], text)
            assert "${{" not in filled or any("${{" in value for value in inputs.values()), f"cannot fill {text}"
            return filled

        runner_variables = {"RUNNER_TEMP": self.temp, "GITHUB_STEP_SUMMARY": self.summary, "GITHUB_OUTPUT": self.output}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SPANPROOF_"))}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", definition["run"]],
            cwd=self._workspace / fill(definition.get("working-directory", ".")),
            env=inherited
            | {name: str(value) for name, value in runner_variables.items()}
            | {name: fill(value) for name, value in definition["env"].items()}
            | environment,
            capture_output=True,
            text=True,
            check=False,
        )
