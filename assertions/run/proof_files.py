"""Discovery of proofs: in files and folders, by name and by tag."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from spanproof.query_lang.load.modules import ProofModule, load_module
from spanproof.query_lang.syntax import nodes as s


class ProofSelection(Struct, frozen=True):
    """Which proofs to run: a word in the name (``keyword``) and any of the ``tags``."""

    keyword: str | None = None
    tags: frozenset[str] = frozenset()

    def is_selected(self, proof: s.Proof) -> bool:
        """Return whether a proof is selected."""
        if self.keyword is not None and self.keyword.lower() not in proof.name.lower():
            return False
        return not self.tags or bool(self.tags & set(proof.tags))


def find_proof_files(paths: list[Path]) -> list[Path]:
    """Return the proof files that `paths` name, those of folders sorted. Raises FileNotFoundError."""
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            files |= dict.fromkeys(sorted(path.rglob("*.proof")))
        elif path.exists():
            files[path] = None
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    return list(files)


def read_module(path: Path) -> ProofModule:
    """Read and check a proof file; reports show its path from here. Raises OSError, UnicodeDecodeError."""
    return load_module(path, format_path(path))


def format_path(path: Path) -> str:
    """Return a path as reports show it: relative to the working directory if it is below that."""
    here = Path.cwd()
    return str(path.resolve().relative_to(here) if path.resolve().is_relative_to(here) else path)


def list_source_files(path: Path, module: ProofModule) -> frozenset[Path]:
    """Return the files of a module: its own, the files it uses, the documents of its contracts."""
    used = {item.path.plain for item in module.file.items if isinstance(item, s.Use)}
    documents = {
        part.document.plain for item in module.file.items for part in s.walk(item) if isinstance(part, s.Contract)
    }
    definition_paths = {each.file.path for each in module.definitions.defines.values() if each.file is not module.file}
    definition_paths |= {file.path for file, _ in module.definitions.lets}
    paths = {path, *(path.parent / name for name in used | documents), *map(Path, definition_paths)}
    return frozenset(each.resolve() for each in paths)
