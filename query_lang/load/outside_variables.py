"""Variables that are set from outside: each must be read by a proof file, and a ``let`` without a value needs one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from spanproof.query_lang.load.modules import ProofModule
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import locate_offset, suggest_names


def find_variable_problems(modules: Iterable[ProofModule], names: Collection[str]) -> Iterator[str]:
    """Yield a message for each of `names` that no file reads, and for each ``let`` without a value or a name."""
    known: set[str] = set()
    missing: list[str] = []
    for module in modules:
        for path, text, let in _list_lets(module):
            known.add(let.name.text)
            if let.value is None and let.name.text not in names:
                line = locate_offset(text, let.at.start).line
                missing.append(f"{path}:{line}: `let {let.name.text}` needs a value: --var {let.name.text}=…")
    for name in sorted(set(names) - known):
        hint = suggest_names(name, known)
        yield f"no proof reads the variable `{name}`" + (f"; {hint}" if hint else "")
    yield from dict.fromkeys(missing)


def _list_lets(module: ProofModule) -> Iterator[tuple[str, str, s.Let]]:
    for file, let in module.definitions.lets:
        yield file.path, file.text, let
    for item in module.file.items:
        for part in s.walk(item):
            if isinstance(part, s.Let):
                yield module.file.path, module.file.text, part
