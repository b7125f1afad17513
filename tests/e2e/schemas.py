"""JSON schemas of files for other tools: Compose, GitHub, GitLab."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft7Validator


def find_schema_errors(name: str, document: Any) -> list[str]:
    """Return the violations of the named schema in a document."""
    return [f"{error.json_path}: {error.message}" for error in _read(name).iter_errors(document)]


@cache
def _read(name: str) -> Draft7Validator:
    text = resources.files("check_jsonschema").joinpath("builtin_schemas", "vendor", f"{name}.json").read_text()
    return Draft7Validator(json.loads(text))
