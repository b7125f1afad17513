"""A proof file with what it brings in by ``use``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spanproof.query_lang.check.checker import check_file
from spanproof.query_lang.check.definitions import Definitions, LoadedDefinition
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.parser import ParsedFile, parse_file


@dataclass(frozen=True, slots=True)
class ProofModule:
    """A file, what it can use, and what is wrong with it (in the order of its text)."""

    file: ParsedFile
    definitions: Definitions
    diagnostics: tuple[Diagnostic, ...]

    @property
    def proofs(self) -> tuple[s.Proof, ...]:
        """The proofs of the file."""
        return tuple(item for item in self.file.items if isinstance(item, s.Proof))


@dataclass(frozen=True, slots=True)
class FileRestrictions:
    """What files may do: use others of their `folder` alone, and nothing that `forbid` objects to."""

    folder: Path
    find_forbidden: Callable[[ParsedFile], Iterable[Diagnostic]]

    def is_inside_folder(self, path: Path) -> bool:
        """Tell whether a path, as links lead it, ends within the folder."""
        return path.is_relative_to(self.folder.resolve())


def load_module(path: Path, display_path: str | None = None) -> ProofModule:
    """Read, parse and check a file and those it uses. Raises OSError, UnicodeDecodeError for the file itself.

    `shown` is how reports call the file; its path unless given.
    """
    return load_module_text(path.read_text(encoding="utf-8-sig"), path, display_path or str(path))


def load_module_text(
    text: str, path: Path, display_path: str, restrictions: FileRestrictions | None = None
) -> ProofModule:
    """Parse and check a text that stands, or is to stand, at `path`, with the files it uses."""
    file = parse_file(text, display_path)
    library, problems = _load_uses(file, path, (path.resolve(),), restrictions)
    more = restrictions.find_forbidden(file) if restrictions else _find_missing_documents(file, path.parent)
    found = (*problems, *check_file(file, library), *more)
    return ProofModule(file, library, tuple(sorted(found, key=lambda each: (each.at.start, each.id))))


def _find_missing_documents(file: ParsedFile, folder: Path) -> Iterator[Diagnostic]:
    """Yield a problem for each contract whose document is not there."""
    for item in file.items:
        for part in s.walk(item):
            if isinstance(part, s.Contract) and not (folder / part.document.plain).is_file():
                yield Diagnostic("no-document", f"`{part.document.plain}` is not a file", part.document.at)


def _load_uses(
    file: ParsedFile, path: Path, parent_paths: tuple[Path, ...], restrictions: FileRestrictions | None
) -> tuple[Definitions, list[Diagnostic]]:
    """Return what the ``use`` statements of a file bring in, and its own definitions."""
    lets: list[tuple[ParsedFile, s.Let]] = []
    defines: dict[str, LoadedDefinition] = {}
    problems: list[Diagnostic] = []
    for item in file.items:
        if isinstance(item, s.Use):
            used, problem = _load_use(item, file, path.parent, parent_paths, restrictions)
            lets += used.lets
            defines |= used.defines
            problems += [problem] if problem else []
        elif isinstance(item, s.Define):
            defines[item.name] = LoadedDefinition(file, item)
    return Definitions(tuple(lets), defines), problems


def _load_use(
    item: s.Use, user: ParsedFile, folder: Path, parent_paths: tuple[Path, ...], restrictions: FileRestrictions | None
) -> tuple[Definitions, Diagnostic | None]:
    name = item.path.plain
    path = (folder / name).resolve()
    if restrictions and not restrictions.is_inside_folder(path):
        return Definitions(), Diagnostic("not-allowed", f"`{name}` is not in the folder of stored proofs", item.path.at)
    shown = str((Path(user.path).parent if restrictions else folder) / name)
    if path in parent_paths:
        return Definitions(), Diagnostic("circular-use", f"`{name}` uses this file in turn", item.path.at)
    try:
        file = parse_file(path.read_text(encoding="utf-8-sig"), shown)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        return Definitions(), Diagnostic("unreadable-use", f"`{name}` cannot be read: {reason}", item.path.at)
    library, problems = _load_uses(file, path, (*parent_paths, path), restrictions)
    problems += [*check_file(file, library), *(restrictions.find_forbidden(file) if restrictions else ())]
    if problems:
        line = file.text[: problems[0].at.start].count("\n") + 1
        message = f"`{name}` has problems; line {line}: {problems[0].message}"
        return Definitions(), Diagnostic("broken-use", message, item.path.at, f"spanproof check {shown}")
    own = tuple((file, each) for each in file.items if isinstance(each, s.Let))
    return Definitions((*library.lets, *own), library.defines), None
