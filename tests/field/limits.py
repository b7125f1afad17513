"""Known limits: where spans record something else than what happened, so that verdicts follow the spans."""

from __future__ import annotations

from typing import Final

from spanproof.tests.field.clients import Client
from spanproof.tests.field.plans import GRPC, Plan
from spanproof.tests.field.truth import JudgedClaim

BODY: Final = "the response status was 200, and a status alone decides whether an attempt failed"
REFUSED: Final = "the client retries below its span: of its attempts, those that reached the callee count"
POSSIBLE: Final = "gRPC records no request: claims that themselves say that A retries B accept two calls of one name"
BELIEVING: Final = ("retry", "backoff", "fallback", "circuit")


def find_limit(client: Client, plan: Plan, claim: JudgedClaim) -> str:
    """Return the rule of the language that a wrong verdict follows; "" if there is none."""
    faults = {fault for each in plan.faults.values() for fault in each}
    if "truncated" in faults:
        return BODY
    if client.protocol == GRPC and plan.name == "two-things" and claim.kind in BELIEVING:
        return POSSIBLE
    return REFUSED if "refused" in faults & client.hidden else ""
