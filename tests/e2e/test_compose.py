"""The Compose file of the shop: its services are the shop's, and start by its commands; see compose.py for how."""

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
from spanproof.tests.e2e.schemas import find_faults

FILE = Path(__file__).parents[2] / "examples/shop/compose.yaml"
PROOFS = "proofs"
# Each takes a second to start: all of them, and the proofs, are run where they are asked for.
STARTED = [] if os.environ.get("TESTS_COMPOSE") == "all" else ["nats", "bank"]


@pytest.fixture
def composition(tmp_path: Path) -> Composition:
    return Composition(FILE, tmp_path)


def test_the_file_is_what_its_schema_asks_for(composition: Composition) -> None:
    assert find_faults("compose-spec", composition.document) == []


def test_all_of_the_shop_is_there(composition: Composition) -> None:
    assert composition.services.keys() == {service.name for service in SERVICES} | {"nats", PROOFS}


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: str(service.name))
def test_each_service_finds_those_it_calls_and_the_collector(composition: Composition, service: Service) -> None:
    told = composition.services[service.name]
    environment = told["environment"]
    ports = {"grpc": 4317, "http/protobuf": 4318}
    assert environment.pop("OTEL_EXPORTER_OTLP_PROTOCOL") == service.otlp_protocol
    assert environment.pop("OTEL_EXPORTER_OTLP_ENDPOINT") == f"http://{PROOFS}:{ports[service.otlp_protocol]}"
    awaited = {callee: {"condition": "service_healthy"} for callee in service.calls}
    if service.name in ("orders", "notifications"):
        assert environment.pop(NATS_URL_VARIABLE) == "nats://nats:4222"
        awaited["nats"] = {"condition": "service_started"}
    assert environment == {name_url_variable(callee): f"http://{callee}:8080" for callee in service.calls}
    assert told.get("depends_on", {}) == awaited
    assert told["command"][-4:] == ["--host", "0.0.0.0", "--port", "8080"]  # noqa: S104 (in a container)


def test_the_proofs_are_there_and_their_options_are_those_of_the_command(composition: Composition) -> None:
    program, name, *arguments = composition.command(PROOFS)
    assert Path(program).name == "spanproof"
    parsed = get_command(app).commands[name].make_context(name, arguments).params
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
