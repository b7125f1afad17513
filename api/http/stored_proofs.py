"""Proofs stored on a server: files in a folder of its operator, read at each use."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fastapi import APIRouter, Depends
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

from spanproof.api.http.parameters import reject_repeated
from spanproof.api.http.problems import ProblemError, describe_problems
from spanproof.query_lang.load.modules import ProofModule
from spanproof.query_lang.load.submitted_proofs import read_stored_proof


class StoredProof(BaseModel):
    """A proof file that runs and gates may name."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"stored": "checkout.proof", "proofs": ["checkout is healthy"], "problem": None}]
        }
    )

    stored: str
    proofs: list[str]
    problem: str | None = Field(description="Why the file cannot be used, if it cannot")


class StoredProofs(Struct, frozen=True):
    """The `.proof` files of a folder, named by their paths in it; none if there is no folder."""

    folder: Path | None
    may_send: bool

    def read(self, name: str, display_path: str) -> ProofModule:
        """Read and check a file, called `display_path` in reports.

        Raises ProblemError if there is no such file or it cannot be read.
        """
        path = self._find_path(name)
        if self.folder is None or path is None:
            raise ProblemError(404, "no such proof", f"there is no stored proof {name}")
        try:
            return read_stored_proof(path, display_path, self.folder, allow_requests=self.may_send)
        except OSError as error:
            raise ProblemError(422, "the proof cannot be used", f"{name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ProblemError(422, "the proof cannot be used", f"{name}: not UTF-8 text") from None

    def list_files(self) -> list[StoredProof]:
        """Return the files in the folder, by name."""
        return [self._describe(name) for name in self._list_names()]

    def _describe(self, name: str) -> StoredProof:
        try:
            module = self.read(name, name)
        except ProblemError as error:
            return StoredProof(stored=name, proofs=[], problem=error.problem.detail)
        problem = None
        if module.diagnostics:
            problem = ProblemError.from_diagnostics("proof", module.file.text, module.diagnostics).problem.detail
        return StoredProof(stored=name, proofs=[proof.name for proof in module.proofs], problem=problem)

    def _list_names(self) -> list[str]:
        if self.folder is None:
            return []
        names = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.proof")]
        return sorted(name for name in names if self._find_path(name) is not None)

    def _find_path(self, name: str) -> Path | None:
        """Return the path of a file, or None if there is none or symbolic links lead out of the folder."""
        parts = PurePosixPath(name)
        hidden = any(part.startswith(".") for part in parts.parts)  # also rejects `..`
        if self.folder is None or str(parts) != name or parts.is_absolute() or hidden or parts.suffix != ".proof":
            return None
        path = self.folder / name
        try:
            inside = path.resolve(strict=True).is_relative_to(self.folder.resolve(strict=True))
        except (OSError, RuntimeError):  # the file does not exist, or symbolic links form a cycle
            return None
        return path if inside and path.is_file() else None


def make_stored_proofs_router(stored: StoredProofs) -> APIRouter:
    """Return the router of stored proofs."""
    router = APIRouter(prefix="/api/v1", tags=["runs"], dependencies=[Depends(reject_repeated)])

    @router.get("/proofs/stored", responses=describe_problems(422))
    def list_stored_proofs() -> list[StoredProof]:
        """List the proof files stored on this server, by name; runs and gates may name them."""
        return stored.list_files()

    return router
