"""Checks that a wheel holds every file of the packages in the checkout, not only the Python ones."""

import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path


def main(wheel: str) -> int:
    """Compare the wheel with the checkout, and print what is missing or what it holds."""
    packages = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    expected: set[str] = set()
    for package in packages:
        folder = Path(*package.split(".")[1:])
        # The root holds much that is no part of the package.
        found = [Path("__init__.py"), Path("py.typed")] if folder == Path() else folder.rglob("*")
        expected |= {f"spanproof/{path}" for path in found if path.is_file() and not is_cache(path)}
    shipped = set(zipfile.ZipFile(wheel).namelist())
    if missing := sorted(expected - shipped):
        print(f"{Path(wheel).name} lacks:", *missing, sep="\n  ")
        return 1
    kinds = Counter(Path(name).suffix for name in expected)
    counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
    print(f"{Path(wheel).name} holds all {len(expected)} files: {counts}")
    return 0


def is_cache(path: Path) -> bool:
    """Return whether a tool has left this file."""
    return path.suffix == ".pyc" or any(part.startswith(".") for part in path.parts)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
