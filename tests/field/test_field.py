"""No verdict about real clients contradicts the log of the server that they called: a bounded part of `make field`."""

from __future__ import annotations

import os
from typing import Final

import pytest

from spanproof.tests.field.clients import BUILT, CLIENTS, Client
from spanproof.tests.field.comparison import WRONG, Field
from spanproof.tests.field.matrix import format_wrong
from spanproof.tests.field.plans import PLANS

# Of each language, clients whose spans have different shapes.
CHOSEN: Final = {
    "python": ("tenacity-httpx", "requests-retry", "celery-redis"),
    "node": ("axios-retry", "undici-retry-agent"),
    "go": ("retryablehttp", "gobreaker", "grpc-go"),
    "java": ("okhttp", "resilience4j-breaker-okhttp"),
}
PLANS_OF_ALL: Final = ("503-once", "reset-once", "hang-once", "two-things")
PLANS_OF_BREAKERS: Final = ("outage", "refused-once")


def skip_unless_possible(why_not: str) -> None:
    """Skip a test with the reason; where nothing may be skipped, fail."""
    if why_not:
        if os.environ.get("TESTS_REQUIRE_ALL"):
            pytest.fail(why_not)
        pytest.skip(why_not)


def is_breaker(client: Client) -> bool:
    return "breaker" in client.name


@pytest.mark.parametrize("language", CHOSEN)
def test_no_verdict_contradicts_the_log(language: str) -> None:
    is_built = (BUILT / f"{language}.ready").exists()
    skip_unless_possible("" if is_built else f"`tests/field/build {language}` builds the clients")
    runs = []
    with Field() as field:
        for name in CHOSEN[language]:
            client = CLIENTS[name]
            plans = [PLANS[each] for each in (PLANS_OF_BREAKERS if is_breaker(client) else PLANS_OF_ALL)]
            if all(field.why_not(client, plan) for plan in plans):
                skip_unless_possible(field.why_not(client, plans[0]))
            runs += field.run(client, plans)
        compared = field.judge(runs)
    assert {each.client for each in compared} == set(CHOSEN[language])
    assert not any(each.mark in WRONG for each in compared), "\n".join(format_wrong(compared))
