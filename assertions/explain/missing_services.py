"""Services that a claim names and that its traces do not contain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from spanproof.assertions.findings.path_search import resolve_service
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.syntax import nodes as s

if TYPE_CHECKING:
    import duckdb

PRESENT_SERVICES_SQL: Final = """
SELECT t.service FROM topology t SEMI JOIN selected USING (trace_id) WHERE list_contains($names::VARCHAR[], t.service)
UNION
SELECT e.callee FROM attempts e SEMI JOIN selected USING (trace_id) WHERE list_contains($names::VARCHAR[], e.callee)
"""


def find_missing_services(
    connection: duckdb.DuckDBPyConnection, claim: s.Claim, selections: Sequence[s.Selection], bindings: Bindings
) -> tuple[str, ...]:
    """Return the services that a claim names and the selected traces do not contain, in the order of the claim.

    The alternatives of a step such as ``(bank | bank-backup)`` are missing only if all of them are.
    """
    steps = [[target] for each in selections for target in _list_targets(each)]
    if isinstance(claim, s.Path):
        steps = [list(part.targets) for part in s.walk(claim) if isinstance(part, s.Step)]
    alternatives_by_step = [[resolve_service(target, bindings) for target in targets] for targets in steps]
    names = list(
        dict.fromkeys(name for alternatives in alternatives_by_step for name in alternatives if name is not None)
    )
    present = {name for (name,) in connection.execute(PRESENT_SERVICES_SQL, {"names": names}).fetchall()}
    missing = (names for names in alternatives_by_step if None not in names and not present & set(names))
    return tuple(dict.fromkeys(str(name) for names in missing for name in names))


def _list_targets(selection: s.Selection) -> tuple[s.SpanSelection, ...]:
    return (selection.caller, selection.callee) if isinstance(selection, s.CallSelection) else (selection,)
