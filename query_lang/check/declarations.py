"""Declarations about calls: in a proof file, in the configuration of a store, or as an option."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from spanproof.query_lang.check.readings import DeclaredCall
from spanproof.query_lang.syntax import nodes as s

_CALL_PATTERN: Final = re.compile(r'\s*(?P<caller>[^\s">]+|"[^"]+")\s*->\s*(?P<callee>[^\s">]+|"[^"]+")\s*')


def read_declaration(declaration: s.Declaration) -> DeclaredCall | None:
    """Return what a declaration says, or None if it is not about calls from one service to another."""
    call = declaration.call
    if not isinstance(call, s.CallSelection) or call.attempts or call.arrow == "->>":
        return None
    if any(target.operation is not None or target.where is not None for target in (call.caller, call.callee)):
        return None
    caller, callee = (_read_service(target.service) for target in (call.caller, call.callee))
    return DeclaredCall(caller, callee, declaration.kind == "retries")


def read_declarations(items: Iterable[s.Item]) -> Iterator[DeclaredCall]:
    """Yield the declarations of a proof file, which has been checked."""
    for item in items:
        call = read_declaration(item) if isinstance(item, s.Declaration) else None
        if call is not None:
            yield call


def parse_declared_call(text: str, *, joined: bool) -> DeclaredCall:
    """Return the declaration in a text such as ``orders -> payments``. Raises ValueError."""
    match = _CALL_PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not a call, such as `orders -> payments`")
    return DeclaredCall(match["caller"].strip('"'), match["callee"].strip('"'), joined)


def _read_service(service: s.Name | s.Text | None) -> str:
    match service:
        case s.Text():
            return service.plain
        case s.Name():
            return service.text
        case None:
            return "*"
