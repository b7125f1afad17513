"""Log of an import: what was skipped, which unknown keys were found, and what the file says about itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct, field

from spanproof.collector.formats.json_documents import COMMENT_KEY, Json, join_path, raise_unreadable

_INDEX: Final = re.compile(r"\[\d+\]")


class ImportLog(Struct, frozen=True):
    """Counts and notes that reading a file collects; if `lenient`, unknown keys are counted instead of refused."""

    lenient: bool = False
    # documents of other signals, by signal
    skipped: Counter[str] = field(default_factory=Counter)
    # paths of unknown keys, without indices
    unknown_keys: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def check_keys(self, value: Mapping[str, Json], known: Iterable[str], path: str) -> None:
        """Raise UnreadableFile for a key that is not in `known`, or count it; comments are always allowed."""
        for key in value:
            if key not in known and key != COMMENT_KEY:
                if not self.lenient:
                    raise_unreadable(join_path(path, key), "unknown field; its content would be lost")
                self.unknown_keys[_INDEX.sub("[]", join_path(path, key))] += 1

    def format_skipped(self) -> str:
        """Return a clause about the skipped documents, to append to a sentence, or an empty text."""
        clause = " and ".join(f"{count} of {kind}" for kind, count in sorted(self.skipped.items()) if count)
        return f"; {clause} skipped".replace(" of ", " documents of ", 1) if clause else ""

    def list_warnings(self) -> list[str]:
        """Return what the user should know: notes, and each unknown key once."""
        unknown = [
            f"{path}: unknown field, ignored {'once' if count == 1 else f'{count} times'}"
            for path, count in sorted(self.unknown_keys.items())
        ]
        return self.notes + unknown
