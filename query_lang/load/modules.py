"""Proof files with the items that they import by ``use``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from spanproof.query_lang.check.checker import check_file
from spanproof.query_lang.check.definitions import Definitions, LoadedDefinition
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import Diagnostic
from spanproof.query_lang.syntax.parser import ParsedFile, parse_file


class ProofModule(Struct, frozen=True):
    """Proof file with the definitions it can use and its problems (in the order of its text)."""

    file: ParsedFile
    definitions: Definitions
    diagnostics: tuple[Diagnostic, ...]

    @property
    def proofs(self) -> tuple[s.Proof, ...]:
        """Proofs of the file."""
        return tuple(item for item in self.file.items if isinstance(item, s.Proof))


class FileRestrictions(Struct, frozen=True):
    """Restrictions on files: they can use only files of `folder`, and nothing that `find_forbidden` reports."""

    folder: Path
    find_forbidden: Callable[[ParsedFile], Iterable[Diagnostic]]

    def is_inside_folder(self, path: Path) -> bool:
        """Return whether a path, with symbolic links resolved, is inside the folder."""
        return path.is_relative_to(self.folder.resolve())


def load_module(path: Path, display_path: str | None = None) -> ProofModule:
    """Read, parse and check a file and the files it uses. Raises OSError, UnicodeDecodeError for the file itself.

    `display_path` is the name of the file in reports. It defaults to the path.
    """
    return load_module_text(path.read_text(encoding="utf-8-sig"), path, display_path or str(path))


def load_module_text(
    text: str, path: Path, display_path: str, restrictions: FileRestrictions | None = None
) -> ProofModule:
    """Parse and check the text of a (future) file at `path`, with the files it uses."""
    file = parse_file(text, display_path)
    definitions, problems = _load_uses(file, path, (path.resolve(),), restrictions)
    other_problems = restrictions.find_forbidden(file) if restrictions else _find_missing_documents(file, path.parent)
    all_problems = (*problems, *check_file(file, definitions), *other_problems)
    return ProofModule(
        file, definitions, tuple(sorted(all_problems, key=lambda problem: (problem.at.start, problem.id)))
    )


def _find_missing_documents(file: ParsedFile, folder: Path) -> Iterator[Diagnostic]:
    """Yield a problem for each contract whose document does not exist."""
    for item in file.items:
        for part in s.walk(item):
            if isinstance(part, s.Contract) and not (folder / part.document.plain).is_file():
                yield Diagnostic("no-document", f"`{part.document.plain}` is not a file", part.document.at)


def _load_uses(
    file: ParsedFile, path: Path, parent_paths: tuple[Path, ...], restrictions: FileRestrictions | None
) -> tuple[Definitions, list[Diagnostic]]:
    """Return the definitions that the ``use`` statements of a file import, and its own."""
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
    display_path = str((Path(user.path).parent if restrictions else folder) / name)
    if path in parent_paths:
        return Definitions(), Diagnostic("circular-use", f"`{name}` uses this file in turn", item.path.at)
    try:
        file = parse_file(path.read_text(encoding="utf-8-sig"), display_path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        return Definitions(), Diagnostic("unreadable-use", f"`{name}` cannot be read: {reason}", item.path.at)
    definitions, problems = _load_uses(file, path, (*parent_paths, path), restrictions)
    problems += [*check_file(file, definitions), *(restrictions.find_forbidden(file) if restrictions else ())]
    if problems:
        line = file.text[: problems[0].at.start].count("\n") + 1
        message = f"`{name}` has problems; line {line}: {problems[0].message}"
        return Definitions(), Diagnostic("broken-use", message, item.path.at, f"spanproof check {display_path}")
    own_lets = tuple((file, statement) for statement in file.items if isinstance(statement, s.Let))
    return Definitions((*definitions.lets, *own_lets), definitions.defines), None
