"""Gates look more than once: how the error that a proof allows itself is shared out among its looks."""

from __future__ import annotations

from decimal import Decimal

from spanproof.query_lang.check.modules import ProofModule
from spanproof.query_lang.syntax import nodes as s


def divide_error(module: ProofModule, evaluations: int) -> Decimal:
    """Return the share of its error that each estimate may use up at each of so many looks.

    An estimate at confidence 95 % errs in at most 5 % of cases. Asked again and again, and beside others, it would
    err more often; with equal shares (Bonferroni's inequality; as a spending function, the linear one of Lan & DeMets
    1983, Biometrika 70, 659-663) all estimates at all looks together err no more often than one would at one.
    """
    return 1 / Decimal(evaluations * max(1, count_estimates(module)))


def count_estimates(module: ProofModule) -> int:
    """Count the claims of a module that estimate, those of definitions as often as they are applied."""
    found = 0
    for proof in module.proofs:
        for statement in proof.statements:
            claims: tuple[object, ...] = (statement,)
            if isinstance(statement, s.Apply):
                claims = module.definitions.defines[statement.name].define.statements
            found += sum(_is_estimate(claim) for claim in claims)
    return found


def _is_estimate(statement: object) -> bool:
    return isinstance(statement, s.Expectation) and (
        statement.confidence is not None or isinstance(statement.claim, s.NotWorse)
    )
