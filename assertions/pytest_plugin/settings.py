"""What pytest's options and configuration say of proofs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest

from spanproof.assertions.env_file import read_env_file
from spanproof.assertions.settings import read_rules, read_values
from spanproof.collector.addresses import is_loopback
from spanproof.collector.rules import Rules
from spanproof.query_lang.secrecy import Secrets

PREFIX: Final = "--spanproof-"


@dataclass(frozen=True, slots=True)
class Settings:
    """What proofs are told, and where their spans are received."""

    variables: Mapping[str, str] = field(repr=False)  # some may be secret
    secrets: Secrets
    rules: Rules
    otlp_grpc: str
    otlp_http: str


KEPT: Final = pytest.StashKey[Settings]()


def read_settings(config: pytest.Config) -> Settings:
    """Read options and configuration, once; the file goes into the environment. Raises UsageError."""
    if KEPT not in config.stash:
        try:
            config.stash[KEPT] = _read(config)
        except ValueError as error:
            raise pytest.UsageError(f"spanproof: {error}") from error
    return config.stash[KEPT]


def _read(config: pytest.Config) -> Settings:
    # what stands later holds: the command line goes before the configuration
    given = [*config.getini("spanproof_var"), *config.getoption(f"{PREFIX}var")]
    variables, secrets = read_values(given, config.getoption(f"{PREFIX}secret"), PREFIX)
    rules = read_rules(
        config.getini("spanproof_proxy"),
        config.getini("spanproof_max_retry_gap") or "60s",
        config.getini("spanproof_max_clock_skew") or "10ms",
        config.getini("spanproof_circuit_marker"),
        ("spanproof_max_retry_gap", "spanproof_max_clock_skew"),
    )
    addresses = [_read_address(config, name) for name in ("grpc", "http")]
    _read_environment(config)
    return Settings(variables, secrets, rules, *addresses)


def _read_address(config: pytest.Config, name: str) -> str:
    told, configured = config.getoption(f"{PREFIX}otlp-{name}"), config.getini(f"spanproof_otlp_{name}")
    address: str = told or configured or "127.0.0.1:0"
    if not is_loopback(address):
        raise ValueError(f"{PREFIX}otlp-{name}: {address} is reached by others; use `spanproof run --token-file`")
    return address


def _read_environment(config: pytest.Config) -> None:
    told, configured = config.getoption(f"{PREFIX}env-file"), config.getini("spanproof_env_file")
    if not told and not configured:
        return
    path = config.invocation_params.dir / told if told else config.rootpath / configured
    added = {name: value for name, value in read_env_file(path).items() if name not in os.environ}
    os.environ.update(added)

    def put_back() -> None:
        for name in added:
            os.environ.pop(name, None)

    config.add_cleanup(put_back)
