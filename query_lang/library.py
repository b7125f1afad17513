"""What a file can use besides its own statements: the ``let``s and ``define``s of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spanproof.query_lang import syntax as s
from spanproof.query_lang.parse import ProofFile


@dataclass(frozen=True, slots=True)
class Definition:
    """A ``define`` and the file whose text its positions belong to."""

    file: ProofFile
    define: s.Define


@dataclass(frozen=True, slots=True)
class Library:
    """Variables of other files, in their order, and definitions by name, the file's own among them."""

    lets: tuple[tuple[ProofFile, s.Let], ...] = ()
    defines: Mapping[str, Definition] = field(default_factory=dict)
