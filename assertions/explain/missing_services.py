"""Which services a claim needs that its traces do not have."""

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
    """Return the services that a claim names and that are not in the traces selected, in its order.

    Of a step such as ``(bank | bank-backup)``, each is lacking only if all are.
    """
    wanted = [[target] for each in selections for target in _list_targets(each)]
    if isinstance(claim, s.Path):
        wanted = [list(part.targets) for part in s.walk(claim) if isinstance(part, s.Step)]
    named = [[resolve_service(target, bindings) for target in targets] for targets in wanted]
    names = list(dict.fromkeys(name for alternatives in named for name in alternatives if name is not None))
    seen = {name for (name,) in connection.execute(PRESENT_SERVICES_SQL, {"names": names}).fetchall()}
    lacking = (alternatives for alternatives in named if None not in alternatives and not seen & set(alternatives))
    return tuple(dict.fromkeys(str(name) for alternatives in lacking for name in alternatives))


def _list_targets(selection: s.Selection) -> tuple[s.SpanSelection, ...]:
    return (selection.caller, selection.callee) if isinstance(selection, s.CallSelection) else (selection,)
