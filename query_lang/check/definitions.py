"""Names that a file can use besides its own statements: ``let`` and ``define`` items of other files."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile


class LoadedDefinition(Struct, frozen=True):
    """``define`` item and the file that its positions refer to."""

    file: ParsedFile
    define: s.Define


class Definitions(Struct, frozen=True):
    """Variables of other files, in order, and definitions by name, including the file's own."""

    lets: tuple[tuple[ParsedFile, s.Let], ...] = ()
    defines: Mapping[str, LoadedDefinition] = field(default_factory=dict)
