"""Parts of JSON inside attributes."""

from __future__ import annotations

import json
from typing import Any

from spanproof.tests.reference.spans import as_text


def read_part(value: Any, keys: tuple[str | int, ...]) -> Any:
    """Return the part of the JSON in a text to which the keys lead, or None if there is none."""
    text = None if isinstance(value, list) else as_text(value)
    try:
        part = json.loads(text or "", parse_constant=float.fromhex)  # NaN is no JSON
        for key in keys:
            part = part[key] if isinstance(part, dict | list) else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return part
