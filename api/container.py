"""``spanproof serve`` in a container, started with Testcontainers for the duration of a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import httpx
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy

from spanproof import __version__

GRPC_PORT, HTTP_PORT, API_PORT = 4317, 4318, 8321
# The default command of the image, to which options can be added.
COMMAND: Final = (
    "spanproof", "serve", "--db", "/data/spanproof.duckdb", "--otlp-grpc", f"0.0.0.0:{GRPC_PORT}",
    "--otlp-http", f"0.0.0.0:{HTTP_PORT}", "--api", f"0.0.0.0:{API_PORT}", "--insecure-no-auth",
)  # fmt: skip
POLL_INTERVAL_S: Final = 0.1  # Testcontainers can only poll whether a container is ready


class SpanproofContainer(DockerContainer):
    """A collector with its API. Proofs may send requests to `targets` (``host:port``).

    Example:
        >>> with SpanproofContainer(targets=["shop:8080"]) as spanproof:  # doctest: +SKIP
        ...     start_shop(spanproof.environment)
        ...     assert spanproof.run_proofs(Path("checkout.proof").read_text())["outcome"] == "pass"

    """

    def __init__(self, image: str = f"spanproof:{__version__}", *, targets: Sequence[str] = (), **options: Any) -> None:
        super().__init__(image, **options)
        self.with_exposed_ports(GRPC_PORT, HTTP_PORT, API_PORT)
        self.waiting_for(HttpWaitStrategy(API_PORT, "/readyz").with_poll_interval(POLL_INTERVAL_S))
        if targets:
            self.with_command([*COMMAND, *(f"--allow-target={target}" for target in targets)])

    @property
    def grpc_endpoint(self) -> str:
        """The OTLP/gRPC endpoint for processes outside containers."""
        return self._make_url(GRPC_PORT)

    @property
    def http_endpoint(self) -> str:
        """The OTLP/HTTP endpoint for processes outside containers."""
        return self._make_url(HTTP_PORT)

    @property
    def api_url(self) -> str:
        """The base URL of the HTTP API."""
        return self._make_url(API_PORT)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a process outside containers exports to this collector."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.http_endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}

    def run_proofs(self, text: str, *, within_s: float = 60, **variables: str) -> dict[str, Any]:
        """Run proofs on the server and return the run as the API describes it.

        Raises httpx.HTTPStatusError, and TimeoutError if the run has not ended after `within_s` seconds.
        """
        response = httpx.post(
            f"{self.api_url}/api/v1/runs",
            params={"wait": f"{within_s:g}s"},
            json={"proof": text, "variables": variables},
            timeout=within_s + 10,
        )
        if response.is_error:
            raise httpx.HTTPStatusError(response.text, request=response.request, response=response)
        run: dict[str, Any] = response.json()
        if run["outcome"] is None:
            raise TimeoutError(f"run {run['id']} has not ended within {within_s:g} s")
        return run

    def _make_url(self, port: int) -> str:
        return f"http://{self.get_container_host_ip()}:{self.get_exposed_port(port)}"
