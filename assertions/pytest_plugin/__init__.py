"""The pytest plugin: collects ``.proof`` files, and offers the fixtures ``spanproof`` and ``traces``."""

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
    "var", "env_file", "otlp_grpc", "otlp_http", "proxy", "max_retry_gap", "max_clock_skew", "circuit_marker",
)  # fmt: skip

# pytest imports this in every run of everybody who has spanproof installed: all else is imported where it is needed.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, each also as a setting in pytest's configuration, but for secrets, which do not belong there."""
    group = parser.getgroup("spanproof", "proofs about traces (spanproof)")
    repeated: dict[str, Any] = {"action": "append", "default": []}
    single: dict[str, Any] = {"default": None}
    group.addoption(
        "--spanproof-var", metavar="NAME=VALUE", help="Set a `let` of proofs from outside; may be repeated.", **repeated
    )
    group.addoption(
        "--spanproof-secret", metavar="NAME=VALUE", help="The same, but the value is never shown.", **repeated
    )
    group.addoption(
        "--spanproof-env-file", metavar="FILE", help="What `env` finds besides the environment: NAME=VALUE.", **single
    )
    for name in ("grpc", "http"):
        about = f"Where spans are received over {name}; a free port if not said."
        group.addoption(f"--spanproof-otlp-{name}", metavar="HOST:PORT", help=about, **single)
        parser.addini(f"spanproof_otlp_{name}", about, type="string")
    parser.addini("spanproof_var", "Lines of NAME=VALUE, each a `let` of proofs.", type="linelist")
    parser.addini("spanproof_env_file", "What `env` finds besides the environment, from here.", type="string")
    parser.addini("spanproof_proxy", "Services that are sidecars, a line each.", type="linelist")
    parser.addini("spanproof_max_retry_gap", "The longest wait before another attempt.", type="string")
    parser.addini("spanproof_max_clock_skew", "How far clocks may be apart.", type="string")
    parser.addini("spanproof_circuit_marker", "What an open circuit leaves behind, a line each.", type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Read what is set, so that what is wrong with it is said at once."""
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
    """What receives spans while tests run; proofs ask for it by this name, which nobody else has."""
    from spanproof.assertions.pytest_plugin.collector import open_collector

    with open_collector(pytestconfig) as collector:
        yield collector


@pytest.fixture(scope="session")
def spanproof(_spanproof_collector: Collector) -> Collector:
    """An embedded collector, to which whatever is started after it exports its spans."""
    return _spanproof_collector


@pytest.fixture
def traces(_spanproof_collector: Collector, request: pytest.FixtureRequest) -> Iterator[Traces]:
    """The traces that this test leads to: ``traces.expect("path a -> b")``."""
    from spanproof.assertions.pytest_plugin.traces_fixture import open_traces

    with open_traces(_spanproof_collector, request.node) as traces:
        yield traces
