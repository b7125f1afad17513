"""The Compose file of the shop, run by compose.py: its services match those of the shop, and they start."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.main import get_command

from spanproof.api.cli.main import app
from spanproof.api.cli.receiver_options import ReceiverOptionGroup
from spanproof.api.cli.report_options import read_report_targets
from spanproof.examples.shop.services import NATS_URL_VARIABLE, SERVICES, Service, name_url_variable
from spanproof.tests.command import wait_until
from spanproof.tests.e2e.compose import Composition
from spanproof.tests.e2e.schemas import find_schema_errors

FILE = Path(__file__).parents[2] / "examples/shop/compose.yaml"
PROOFS = "proofs"
# Each takes a second to start; all services and the proofs run only with TESTS_COMPOSE=all.
STARTED = [] if os.environ.get("TESTS_COMPOSE") == "all" else ["nats", "bank"]


@pytest.fixture
def composition(tmp_path: Path) -> Composition:
    return Composition(FILE, tmp_path)


def test_file_matches_its_schema(composition: Composition) -> None:
    assert find_schema_errors("compose-spec", composition.document) == []


def test_file_contains_all_services(composition: Composition) -> None:
    assert composition.services.keys() == {service.name for service in SERVICES} | {"nats", PROOFS}


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: str(service.name))
def test_services_have_addresses_of_callees_and_collector(composition: Composition, service: Service) -> None:
    definition = composition.services[service.name]
    environment = definition["environment"]
    ports = {"grpc": 4317, "http/protobuf": 4318}
    assert environment.pop("OTEL_EXPORTER_OTLP_PROTOCOL") == service.otlp_protocol
    assert environment.pop("OTEL_EXPORTER_OTLP_ENDPOINT") == f"http://{PROOFS}:{ports[service.otlp_protocol]}"
    awaited = {callee: {"condition": "service_healthy"} for callee in service.calls}
    if service.name in ("orders", "notifications"):
        assert environment.pop(NATS_URL_VARIABLE) == "nats://nats:4222"
        awaited["nats"] = {"condition": "service_started"}
    assert environment == {name_url_variable(callee): f"http://{callee}:8080" for callee in service.calls}
    assert definition.get("depends_on", {}) == awaited
    assert definition["command"][-4:] == ["--host", "0.0.0.0", "--port", "8080"]  # noqa: S104 (in a container)


def test_proofs_exist_and_options_are_valid(composition: Composition) -> None:
    program, name, *arguments = composition.command(PROOFS)
    assert Path(program).name == "spanproof"
    parsed = get_command(app).get_command(None, name).make_context(name, arguments).params
    assert all(Path(path).is_file() for path in parsed["paths"])
    assert {str(target.report_format) for target in read_report_targets(parsed["report"])} == {"junit", "html"}
    options = {field: parsed[field] for field in ("otlp_grpc", "otlp_http", "insecure_no_auth")}
    assert ReceiverOptionGroup(**options).make_receiver_options().tokens is None
    assert re.findall(r":(\d+)", f"{parsed['otlp_grpc']} {parsed['otlp_http']}") == ["4317", "4318"]


def test_services_start_and_are_healthy(composition: Composition, tmp_path: Path) -> None:
    started = STARTED or [name for name in composition.services if name != PROOFS]
    with composition.run(*started) as running:
        for name in started:
            if "test" in composition.services[name]["healthcheck"]:
                wait_until(lambda name=name: composition.is_healthy(name), f"{name} is healthy")
        assert [name for name, process in running.items() if process.poll() is not None] == []
        if not STARTED:
            with composition.run(PROOFS) as proofs:
                assert proofs[PROOFS].wait(60) == 0
            assert (tmp_path / "junit.xml").is_file()
