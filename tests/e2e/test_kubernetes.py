"""The Kubernetes manifests: valid, consistent, and in agreement with the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from spanproof import __version__
from spanproof.collector.receive.authentication import read_tokens
from spanproof.tests.command import FREE, Running, find_address
from spanproof.tests.conftest import Starter
from spanproof.tests.e2e.image import parse

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS: list[dict[str, Any]] = list(
    yaml.safe_load_all((REPOSITORY / "examples/kubernetes/spanproof.yaml").read_text())
)
SECRET, SERVICE, SET = DOCUMENTS
POD = SET["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document["kind"]))
def test_manifests_are_valid(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_names_and_labels_agree() -> None:
    labels = SET["spec"]["template"]["metadata"]["labels"]
    assert SET["spec"]["selector"]["matchLabels"] == SERVICE["spec"]["selector"] == labels
    assert SET["spec"]["serviceName"] == SERVICE["metadata"]["name"]
    assert [(port["targetPort"], port["port"]) for port in SERVICE["spec"]["ports"]] == list(PORTS.items())
    claimed = {claim["metadata"]["name"] for claim in SET["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == claimed | {each["name"] for each in POD["volumes"]}
    assert POD["volumes"][0]["secret"]["secretName"] == SECRET["metadata"]["name"]


def test_manifests_match_the_image() -> None:
    values = {instruction.name: instruction.rest for instruction in parse((REPOSITORY / "Dockerfile").read_text())}
    security = POD["securityContext"]
    assert values["USER"] == f"{security['runAsUser']}:{security['runAsGroup']}" == f"10001:{security['fsGroup']}"
    assert sorted(PORTS.values()) == [int(port) for port in values["EXPOSE"].split()]
    assert CONTAINER["image"] == f"spanproof:{__version__}"
    assert values["VOLUME"] in {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}


def test_tokens_are_readable(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(SECRET["stringData"]["tokens"])
    assert [sorted(token.roles) for token in read_tokens(tmp_path / "tokens").tokens] == [["ingest"], ["read", "run"]]


@pytest.fixture
def server(start: Starter, tmp_path: Path) -> Running:
    """Start the container's command, with its folders below `tmp_path` and on free ports."""
    for mount in CONTAINER["volumeMounts"]:
        (tmp_path / mount["mountPath"].lstrip("/")).mkdir(parents=True)
    (tmp_path / "etc/spanproof/tokens").write_text(SECRET["stringData"]["tokens"])
    program, *arguments = (*CONTAINER["command"], *CONTAINER["args"])
    assert program == "spanproof"
    localized = [re.sub(r"=/", f"={tmp_path}/", argument) for argument in arguments]
    return start(*(re.sub(r"0\.0\.0\.0:\d+", FREE, argument) for argument in localized))


def test_probes_succeed_and_tokens_are_required(server: Running) -> None:
    address = find_address(server.read_line(), "API")
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = CONTAINER[kind]["httpGet"]
        assert get["port"] in PORTS
        assert httpx.get(f"http://{address}{get['path']}").status_code == 200
    assert httpx.get(f"http://{address}/api/v1/services").status_code == 401
    ingest, both = (line.split()[0] for line in SECRET["stringData"]["tokens"].splitlines())
    for token, status in ((ingest, 403), (both, 200)):
        headers = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"http://{address}/api/v1/services", headers=headers).status_code == status
    server.signal(15)
    assert server.wait(POD["terminationGracePeriodSeconds"])


def test_ports_match_the_options() -> None:
    option_ports = dict(re.findall(r"--(\S+)=0\.0\.0\.0:(\d+)", " ".join(CONTAINER["args"])))
    assert option_ports == {name: str(port) for name, port in PORTS.items()}
