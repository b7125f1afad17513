"""The container for Testcontainers, with the real Testcontainers and Docker client, and engine.py as Docker's engine.

These tests do not run the image inside a container; tests/install/test_dockerfile.py builds and runs its contents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from testcontainers.core.config import ConnectionMode, testcontainers_config

from spanproof import __version__
from spanproof.api.container import COMMAND, SpanproofContainer
from spanproof.tests.command import Service
from spanproof.tests.e2e.engine import Engine, open_engine
from spanproof.tests.e2e.image import parse

CMD = next(each for each in parse((Path(__file__).parents[2] / "Dockerfile").read_text()) if each.name == "CMD")
PROOF = """
let base = "nowhere"
proof "the bank is called" {
  when GET "{base}/x"
  expect path shop -> bank
}
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with open_engine(f"spanproof:{__version__}", json.loads(CMD.rest), tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
        # inside another container, Testcontainers would use the network of that container
        monkeypatch.setattr(testcontainers_config, "connection_mode_override", ConnectionMode.docker_host)
        yield engine


def test_container_receives_spans_and_runs_proofs(engine: Engine, service: Service) -> None:
    target = service.base_url.removeprefix("http://")
    with SpanproofContainer(targets=[target]).with_env("SPANPROOF_MAX_RETRY_GAP", "5s") as spanproof:
        assert spanproof.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == spanproof.http_endpoint
        service.export_to(spanproof.http_endpoint.removeprefix("http://"))
        run = spanproof.run_proofs(PROOF, base=service.base_url)
        assert (run["outcome"], run["proofs"][0]["name"]) == ("pass", "the bank is called")
        with pytest.raises(httpx.HTTPStatusError, match="nothing-expected"):
            spanproof.run_proofs('proof "p" {\n  when GET "http://x"\n}')
        ports = {spanproof.grpc_endpoint, spanproof.http_endpoint, spanproof.api_url}
        assert {int(url.rpartition(":")[2]) for url in ports} == set(engine.ports.values())
    assert engine.process is not None
    assert engine.process.returncode == 0


def test_command_matches_the_image(engine: Engine) -> None:
    assert list(COMMAND) == engine.command
