"""What a file can use besides its own statements: the ``let``s and ``define``s of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile


@dataclass(frozen=True, slots=True)
class LoadedDefinition:
    """A ``define`` and the file whose text its positions belong to."""

    file: ParsedFile
    define: s.Define


@dataclass(frozen=True, slots=True)
class Definitions:
    """Variables of other files, in their order, and definitions by name, the file's own among them."""

    lets: tuple[tuple[ParsedFile, s.Let], ...] = ()
    defines: Mapping[str, LoadedDefinition] = field(default_factory=dict)
