"""The schemas of files that are meant for others: Compose, GitHub, GitLab."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft7Validator


def find_faults(name: str, document: Any) -> list[str]:
    """Say what is wrong with a document, as the schema of this name has it."""
    return [f"{error.json_path}: {error.message}" for error in _read(name).iter_errors(document)]


@cache
def _read(name: str) -> Draft7Validator:
    text = resources.files("check_jsonschema").joinpath("builtin_schemas", "vendor", f"{name}.json").read_text()
    return Draft7Validator(json.loads(text))
