"""Carries out the steps of a composite action as GitHub's runner does, as far as this repository's action goes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

EXPRESSION = re.compile(r"\$\{\{ (inputs|github)\.([\w-]+) \}\}")


class Runner:
    """A runner with a checkout in `workspace`; keeps its own files in `temp`."""

    def __init__(self, action: Path, workspace: Path, temp: Path) -> None:
        self.action: dict[str, Any] = yaml.safe_load(action.read_text())
        self.temp = temp
        self.summary, self.output = temp / "summary.md", temp / "output"
        self._workspace = workspace
        self._github = {"action_path": str(action.parent)}

    def carry_out(self, step: str, inputs: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the step of this name with inputs, or their defaults; refuse inputs that there are not."""
        known = {name: str(said.get("default", "")) for name, said in self.action["inputs"].items()}
        assert inputs.keys() <= known.keys()
        values = {"inputs": known | inputs, "github": self._github}
        (found,) = [each for each in self.action["runs"]["steps"] if each["name"] == step]
        assert "${{" not in found["run"], "what is given must not become a command"

        def fill(text: str) -> str:
            filled = EXPRESSION.sub(lambda match: values[match[1]][match[2]], text)
            assert "${{" not in filled or any("${{" in value for value in inputs.values()), f"cannot fill {text}"
            return filled

        own = {"RUNNER_TEMP": self.temp, "GITHUB_STEP_SUMMARY": self.summary, "GITHUB_OUTPUT": self.output}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SPANPROOF_"))}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", found["run"]],
            cwd=self._workspace / fill(found.get("working-directory", ".")),
            env=kept
            | {name: str(value) for name, value in own.items()}
            | {name: fill(value) for name, value in found["env"].items()}
            | environment,
            capture_output=True,
            text=True,
            check=False,
        )
