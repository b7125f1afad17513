"""Environment files of proofs: lines of ``NAME=VALUE``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from spanproof.collector.line_files import read_lines

_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")
_QUOTED: Final = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)\"""")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


def read_env_file(path: Path) -> dict[str, str]:
    """Read a file such as ``.env``: ``#`` starts a comment, values may be quoted. Raises ValueError with the line."""
    variables = {}
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        matched = _LINE.fullmatch(text)
        if not matched:
            raise ValueError(f"{path}:{number}: this is not NAME=VALUE")
        variables[matched[1]] = _read_value(matched[2], f"{path}:{number}")
    return variables


def _read_value(text: str, location: str) -> str:
    if text[:1] not in ("'", '"'):
        return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()
    matched = _QUOTED.match(text)
    if not matched:
        raise ValueError(f"{location}: the quote is not closed")
    rest = text[matched.end() :].strip()
    if rest and not rest.startswith("#"):
        raise ValueError(f"{location}: only a comment may follow the closing quote")
    if matched[1] is not None:
        return matched[1]
    return re.sub(r"\\(.)", lambda escaped: _ESCAPES.get(escaped[1], escaped[1]), matched[2])
