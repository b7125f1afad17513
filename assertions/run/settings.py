"""Settings of proofs from outside: variables, secrets, and service rules."""

from __future__ import annotations

from collections.abc import Iterable

from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.collector.topology.proxies import parse_proxy
from spanproof.query_lang.check.declarations import parse_declared_call
from spanproof.query_lang.check.secrets import MIN_LENGTH, Secrets
from spanproof.query_lang.syntax.literals import read_duration_ns

# Error messages name the option; its prefix depends on the entry point (command line or pytest).


def read_variables(var: Iterable[str], secret: Iterable[str], prefix: str = "--") -> tuple[dict[str, str], Secrets]:
    """Return the variables and the secret values in lines of ``NAME=VALUE``. Raises ValueError."""
    secrets = Secrets()
    variables = dict(split_variable(f"{prefix}var", each) for each in var)
    for name, value in (split_variable(f"{prefix}secret", each) for each in secret):
        if name in variables:
            raise ValueError(f"{name} is given by {prefix}var and by {prefix}secret")
        if len(value.strip()) < MIN_LENGTH:
            raise ValueError(f"{prefix}secret {name}: a value of less than {MIN_LENGTH} letters cannot be masked")
        variables[name] = value
        secrets.add(value)
    return variables, secrets


def split_variable(option: str, text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{option} is NAME=VALUE, not {text!r}")
    return name, value


def read_rules(
    proxies: Iterable[str],
    max_retry_gap: str,
    max_clock_skew: str,
    circuit_markers: Iterable[str],
    edges: Iterable[str] = (),
    retries: Iterable[str] = (),
    distinct: Iterable[str] = (),
    prefix: str = "--",
) -> ServiceRules:
    """Return the service rules that options describe. Raises ValueError, which names the wrong option.

    `prefix` begins the names of the options. With ``--``, words are joined by hyphens, else by underscores.
    """
    names = ("max-retry-gap", "max-clock-skew", "retried-call", "distinct-call")
    options = [prefix + (name if prefix == "--" else name.replace("-", "_")) for name in names]
    limits: list[int] = []
    for option, text in zip(options, (max_retry_gap, max_clock_skew), strict=False):
        try:
            limits.append(read_duration_ns(text))
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None
        if limits[-1] < 0:
            raise ValueError(f"{option}: {text} is negative")
    for proxy in proxies:
        try:
            parse_proxy(proxy)
        except ValueError as error:
            raise ValueError(f"{prefix}proxy: {error}") from None
    declared = [tuple(retries), tuple(distinct)]
    for option, calls in zip(options[2:], declared, strict=True):
        for call in calls:
            try:
                parse_declared_call(call, joined=True)
            except ValueError as error:
                raise ValueError(f"{option}: {error}") from None
    markers = (*ServiceRules().circuit_markers, *circuit_markers)
    return ServiceRules(tuple(proxies), limits[0], limits[1], markers, tuple(edges), *declared)
