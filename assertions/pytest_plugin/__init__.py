"""Pytest plugin: collects ``.proof`` files and provides the fixtures ``spanproof`` and ``traces``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from spanproof.assertions.pytest_plugin.collector import Collector
    from spanproof.assertions.pytest_plugin.items import ProofFileNode
    from spanproof.assertions.pytest_plugin.traces_fixture import Traces

OPTION_NAMES: Final = ("var", "secret", "env-file", "otlp-grpc", "otlp-http")
INI_NAMES: Final = (
    "var", "env_file", "otlp_grpc", "otlp_http", "proxy", "max_retry_gap", "max_clock_skew", "circuit_marker", "edge",
    "retried_call", "distinct_call",
)  # fmt: skip

# pytest imports this module in every run with spanproof installed. Other modules are imported only where needed.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command line options, and a configuration setting for each; secrets have no setting."""
    group = parser.getgroup("spanproof", "proofs about traces (spanproof)")
    repeated: dict[str, Any] = {"action": "append", "default": []}
    single: dict[str, Any] = {"default": None}
    group.addoption("--spanproof-var", metavar="NAME=VALUE", help="Set a `let` of proofs; may be repeated.", **repeated)
    group.addoption(
        "--spanproof-secret", metavar="NAME=VALUE", help="Set a `let` to a value that is never shown.", **repeated
    )
    group.addoption("--spanproof-env-file", metavar="FILE", help="File with variables for `env`: NAME=VALUE.", **single)
    for name in ("grpc", "http"):
        help_ = f"Address that receives spans over {name}; a free port by default."
        group.addoption(f"--spanproof-otlp-{name}", metavar="HOST:PORT", help=help_, **single)
        parser.addini(f"spanproof_otlp_{name}", help_, type="string")
    parser.addini("spanproof_var", "Lines of NAME=VALUE, each a `let` of proofs.", type="linelist")
    parser.addini("spanproof_env_file", "File with variables for `env`, relative to the root directory.", type="string")
    parser.addini("spanproof_proxy", "Services that are sidecars, one per line.", type="linelist")
    parser.addini("spanproof_max_retry_gap", "Longest wait before another attempt.", type="string")
    parser.addini("spanproof_max_clock_skew", "Largest difference between clocks.", type="string")
    parser.addini("spanproof_circuit_marker", "Marks of an open circuit in spans, one per line.", type="linelist")
    parser.addini(
        "spanproof_edge", "Services in front of which `traceparent` is rewritten, one per line.", type="linelist"
    )
    parser.addini("spanproof_retried_call", "Calls whose attempts are one call, one per line: a -> b.", type="linelist")
    parser.addini("spanproof_distinct_call", "Calls whose attempts are separate calls, one per line.", type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings, so that errors in them are reported at once."""
    if any(config.getoption(f"--spanproof-{name}") for name in OPTION_NAMES) or any(
        config.getini(f"spanproof_{name}") for name in INI_NAMES
    ):
        from spanproof.assertions.pytest_plugin.settings import read_settings

        read_settings(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ProofFileNode | None:
    """Collect the proofs of a file."""
    if file_path.suffix != ".proof":
        return None
    from spanproof.assertions.pytest_plugin.items import ProofFileNode

    return ProofFileNode.from_parent(parent, path=file_path)


@pytest.fixture(scope="session")
def _spanproof_collector(pytestconfig: pytest.Config) -> Iterator[Collector]:
    """Collector of the session; the private name avoids conflicts with fixtures of the tests."""
    from spanproof.assertions.pytest_plugin.collector import open_collector

    with open_collector(pytestconfig) as collector:
        yield collector


@pytest.fixture(scope="session")
def spanproof(_spanproof_collector: Collector) -> Collector:
    """Embedded collector; processes that start after it export their spans to it."""
    return _spanproof_collector


@pytest.fixture
def traces(_spanproof_collector: Collector, request: pytest.FixtureRequest) -> Iterator[Traces]:
    """Traces that this test causes: ``traces.expect("path a -> b")``."""
    from spanproof.assertions.pytest_plugin.traces_fixture import open_traces

    with open_traces(_spanproof_collector, request.node) as traces:
        yield traces
