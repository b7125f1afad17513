"""A proof file with what it brings in by ``use``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spanproof.query_lang import syntax as s
from spanproof.query_lang.check import check_file
from spanproof.query_lang.diagnostics import Diagnostic
from spanproof.query_lang.library import Definition, Library
from spanproof.query_lang.parse import ProofFile, parse_file


@dataclass(frozen=True, slots=True)
class Module:
    """A file, what it can use, and what is wrong with it (in the order of its text)."""

    file: ProofFile
    library: Library
    diagnostics: tuple[Diagnostic, ...]

    @property
    def proofs(self) -> tuple[s.Proof, ...]:
        """The proofs of the file."""
        return tuple(item for item in self.file.items if isinstance(item, s.Proof))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What files may do: use others of their `folder` alone, and nothing that `forbid` objects to."""

    folder: Path
    forbid: Callable[[ProofFile], Iterable[Diagnostic]]

    def contain(self, path: Path) -> bool:
        """Tell whether a path, as links lead it, ends within the folder."""
        return path.is_relative_to(self.folder.resolve())


def load_module(path: Path, shown: str | None = None) -> Module:
    """Read, parse and check a file and those it uses. Raises OSError, UnicodeDecodeError for the file itself.

    `shown` is how reports call the file; its path unless given.
    """
    return load_text(path.read_text(encoding="utf-8-sig"), path, shown or str(path))


def load_text(text: str, path: Path, shown: str, bounds: Bounds | None = None) -> Module:
    """Parse and check a text that stands, or is to stand, at `path`, with the files it uses."""
    file = parse_file(text, shown)
    library, problems = _use(file, path, (path.resolve(),), bounds)
    more = bounds.forbid(file) if bounds else _find_unreadable(file, path.parent)
    found = (*problems, *check_file(file, library), *more)
    return Module(file, library, tuple(sorted(found, key=lambda each: (each.at.start, each.id))))


def _find_unreadable(file: ProofFile, folder: Path) -> Iterator[Diagnostic]:
    """Yield a problem for each contract whose document is not there."""
    for item in file.items:
        for part in s.walk(item):
            if isinstance(part, s.Contract) and not (folder / part.document.plain).is_file():
                yield Diagnostic("no-document", f"`{part.document.plain}` is not a file", part.document.at)


def _use(
    file: ProofFile, path: Path, above: tuple[Path, ...], bounds: Bounds | None
) -> tuple[Library, list[Diagnostic]]:
    """Return what the ``use`` statements of a file bring in, and its own definitions."""
    lets: list[tuple[ProofFile, s.Let]] = []
    defines: dict[str, Definition] = {}
    problems: list[Diagnostic] = []
    for item in file.items:
        if isinstance(item, s.Use):
            used, problem = _use_one(item, file, path.parent, above, bounds)
            lets += used.lets
            defines |= used.defines
            problems += [problem] if problem else []
        elif isinstance(item, s.Define):
            defines[item.name] = Definition(file, item)
    return Library(tuple(lets), defines), problems


def _use_one(
    item: s.Use, user: ProofFile, folder: Path, above: tuple[Path, ...], bounds: Bounds | None
) -> tuple[Library, Diagnostic | None]:
    name = item.path.plain
    path = (folder / name).resolve()
    if bounds and not bounds.contain(path):
        return Library(), Diagnostic("not-allowed", f"`{name}` is not in the folder of stored proofs", item.path.at)
    shown = str((Path(user.path).parent if bounds else folder) / name)
    if path in above:
        return Library(), Diagnostic("circular-use", f"`{name}` uses this file in turn", item.path.at)
    try:
        file = parse_file(path.read_text(encoding="utf-8-sig"), shown)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        return Library(), Diagnostic("unreadable-use", f"`{name}` cannot be read: {reason}", item.path.at)
    library, problems = _use(file, path, (*above, path), bounds)
    problems += [*check_file(file, library), *(bounds.forbid(file) if bounds else ())]
    if problems:
        line = file.text[: problems[0].at.start].count("\n") + 1
        message = f"`{name}` has problems; line {line}: {problems[0].message}"
        return Library(), Diagnostic("broken-use", message, item.path.at, f"spanproof check {shown}")
    own = tuple((file, each) for each in file.items if isinstance(each, s.Let))
    return Library((*library.lets, *own), library.defines), None
