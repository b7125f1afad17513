"""The options that say how long, and within how much room, a store keeps traces."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from spanproof.query_lang.syntax.literals import read_duration_ns

if TYPE_CHECKING:
    from spanproof.collector.traces.retention import RetentionLimits

KeepFor = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        envvar="SPANPROOF_KEEP_FOR",
        help="Forget traces of which nothing has come for so long, such as 7d; for ever unless told.",
    ),
]
KeepBelow = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        envvar="SPANPROOF_KEEP_BELOW",
        help="Forget the oldest traces before the file and its log become larger, such as 10GB.",
    ),
]
Memory = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        envvar="SPANPROOF_MEMORY",
        help="What the database may hold in memory; what needs more goes through files beside it.",
    ),
]
MIN_MEMORY_BYTES = 128 * 10**6
_SIZE_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]i?)?B")
_UNIT_FACTORS = {None: 1} | {
    f"{letter}{i}": base**power for i, base in (("", 1000), ("i", 1024)) for power, letter in enumerate("kMGT", 1)
}


def read_retention_limits(keep_for: str | None, keep_below: str | None, db: str) -> RetentionLimits:
    """Read what the options say. Raises ValueError, naming the option."""
    from spanproof.collector.traces.retention import MIN_SIZE_BYTES, RetentionLimits

    keep_for_ns = size = None
    if keep_for is not None:
        try:
            keep_for_ns = read_duration_ns(keep_for)
        except ValueError as error:
            raise ValueError(f"--keep-for: {error}") from None
        if keep_for_ns <= 0:
            raise ValueError(f"--keep-for: {keep_for} keeps nothing")
    if keep_below is not None:
        size = _read_size("--keep-below", keep_below)
        if size < MIN_SIZE_BYTES:
            raise ValueError(f"--keep-below: {keep_below} is too little, {MIN_SIZE_BYTES // 2**20}MiB is the least")
        if db == ":memory:":
            raise ValueError("--keep-below is for a file; a store in memory takes what it needs")
    return RetentionLimits(keep_for_ns, size)


def read_memory_bytes(text: str) -> int:
    """Read how many bytes the database may hold in memory. Raises ValueError, naming the option."""
    size = _read_size("--memory", text)
    if size < MIN_MEMORY_BYTES:
        raise ValueError(f"--memory: {text} is too little, {MIN_MEMORY_BYTES // 10**6}MB is the least")
    return size


def _read_size(option: str, text: str) -> int:
    found = _SIZE_PATTERN.fullmatch(text)
    if not found:
        raise ValueError(f"{option}: {text!r} is no size; write one such as 500MB, 10GB or 8GiB")
    return int(float(found[1]) * _UNIT_FACTORS[found[2]])
