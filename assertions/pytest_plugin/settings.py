"""Settings of proofs from pytest's options and configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest

from spanproof.assertions.run.env_file import read_env_file
from spanproof.assertions.run.settings import read_rules, read_variables
from spanproof.collector.calls.service_rules import ServiceRules
from spanproof.collector.receive.addresses import is_loopback
from spanproof.query_lang.check.secrets import Secrets

OPTION_PREFIX: Final = "--spanproof-"


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """Variables, secrets and service rules of proofs, and the addresses that receive their spans."""

    variables: Mapping[str, str] = field(repr=False)  # some may be secret
    secrets: Secrets
    rules: ServiceRules
    otlp_grpc: str
    otlp_http: str


SETTINGS_KEY: Final = pytest.StashKey[PluginSettings]()


def read_settings(config: pytest.Config) -> PluginSettings:
    """Read the options and the configuration once; load the env file into the environment. Raises UsageError."""
    if SETTINGS_KEY not in config.stash:
        try:
            config.stash[SETTINGS_KEY] = _read_settings(config)
        except ValueError as error:
            raise pytest.UsageError(f"spanproof: {error}") from error
    return config.stash[SETTINGS_KEY]


def _read_settings(config: pytest.Config) -> PluginSettings:
    # the last value counts, so the command line overrides the configuration
    given = [*config.getini("spanproof_var"), *config.getoption(f"{OPTION_PREFIX}var")]
    variables, secrets = read_variables(given, config.getoption(f"{OPTION_PREFIX}secret"), OPTION_PREFIX)
    rules = read_rules(
        config.getini("spanproof_proxy"),
        config.getini("spanproof_max_retry_gap") or "60s",
        config.getini("spanproof_max_clock_skew") or "10ms",
        config.getini("spanproof_circuit_marker"),
        config.getini("spanproof_edge"),
        config.getini("spanproof_retried_call"),
        config.getini("spanproof_distinct_call"),
        prefix="spanproof_",
    )
    addresses = [_read_address(config, name) for name in ("grpc", "http")]
    _load_env_file(config)
    return PluginSettings(variables, secrets, rules, *addresses)


def _read_address(config: pytest.Config, name: str) -> str:
    option, configured = config.getoption(f"{OPTION_PREFIX}otlp-{name}"), config.getini(f"spanproof_otlp_{name}")
    address: str = option or configured or "127.0.0.1:0"
    if not is_loopback(address):
        raise ValueError(
            f"{OPTION_PREFIX}otlp-{name}: {address} can be reached from other machines;"
            " use `spanproof run --token-file`"
        )
    return address


def _load_env_file(config: pytest.Config) -> None:
    option, configured = config.getoption(f"{OPTION_PREFIX}env-file"), config.getini("spanproof_env_file")
    if not option and not configured:
        return
    path = config.invocation_params.dir / option if option else config.rootpath / configured
    added = {name: value for name, value in read_env_file(path).items() if name not in os.environ}
    os.environ.update(added)

    def remove_added() -> None:
        for name in added:
            os.environ.pop(name, None)

    config.add_cleanup(remove_added)
