"""Division of a proof's error probability among the evaluations of a gate."""

from __future__ import annotations

from decimal import Decimal

from spanproof.query_lang.load.modules import ProofModule
from spanproof.query_lang.syntax import nodes as s


def divide_error(module: ProofModule, evaluations: int) -> Decimal:
    """Return the fraction of its allowed error that each estimate may use at each of `evaluations` evaluations.

    An estimate at 95 % confidence errs in at most 5 % of cases. Several estimates or evaluations together err more
    often. With equal fractions (Bonferroni's inequality; the linear spending function of Lan & DeMets 1983,
    Biometrika 70, 659-663), all estimates at all evaluations together err no more often than a single one.
    """
    return 1 / Decimal(evaluations * max(1, count_estimates(module)))


def count_estimates(module: ProofModule) -> int:
    """Count the statistical claims of a module; claims of a definition count once per application."""
    count = 0
    for proof in module.proofs:
        for statement in proof.statements:
            claims: tuple[object, ...] = (statement,)
            if isinstance(statement, s.Apply):
                claims = module.definitions.defines[statement.name].define.statements
            count += sum(_is_estimate(claim) for claim in claims)
    return count


def _is_estimate(statement: object) -> bool:
    return isinstance(statement, s.Expectation) and (
        statement.confidence is not None or isinstance(statement.claim, s.NotWorse)
    )
