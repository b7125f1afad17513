"""The container for Testcontainers: Testcontainers and Docker's client are real, Docker's engine is engine.py.

What is not tried here is the image inside of a container; test_dockerfile.py builds and runs what it is made of.
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
proof "the bank is asked" {
  when GET "{base}/x"
  expect path shop -> bank
}
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with open_engine(f"spanproof:{__version__}", json.loads(CMD.rest), tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
        # within a container of somebody else's it would look for that one's network
        monkeypatch.setattr(testcontainers_config, "connection_mode_override", ConnectionMode.docker_host)
        yield engine


def test_a_container_receives_spans_and_carries_out_proofs(engine: Engine, service: Service) -> None:
    target = service.base_url.removeprefix("http://")
    with SpanproofContainer(targets=[target]).with_env("SPANPROOF_MAX_RETRY_GAP", "5s") as spanproof:
        assert spanproof.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == spanproof.http_endpoint
        service.export_to(spanproof.http_endpoint.removeprefix("http://"))
        run = spanproof.run_proofs(PROOF, base=service.base_url)
        assert (run["outcome"], run["proofs"][0]["name"]) == ("pass", "the bank is asked")
        with pytest.raises(httpx.HTTPStatusError, match="nothing-expected"):
            spanproof.run_proofs('proof "p" {\n  when GET "http://x"\n}')
        ports = {spanproof.grpc_endpoint, spanproof.http_endpoint, spanproof.api_url}
        assert {int(url.rpartition(":")[2]) for url in ports} == set(engine.ports.values())
    assert engine.process is not None
    assert engine.process.returncode == 0


def test_it_does_what_the_image_does(engine: Engine) -> None:
    assert list(COMMAND) == engine.command
