"""Senders: a Collector, and telemetrygen, which sends to the Collector or directly to spanproof."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from spanproof.tests.command import wait_until
from spanproof.tests.ports import find_free_address

BUILT = Path(__file__).parents[2] / ".interop"
TELEMETRYGEN = BUILT / "telemetrygen"
OTELCOL = BUILT / "collector" / "otelcol"
_IDS = re.compile(r"^\s+Trace ID\s+: (\w{32})\n\s+Parent ID\s+: \w*\n\s+ID\s+: (\w{16})$", re.M)

Ids = set[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Load:
    """The traces that telemetrygen sends: a number from each worker, each with a root and its children."""

    workers: int = 4
    traces: int = 100
    children: int = 3
    # spans per second and worker; above the capacity of its queue, telemetrygen drops spans before it sends them
    rate: int = 0

    @property
    def spans(self) -> int:
        return self.workers * self.traces * (1 + self.children)


def start_telemetrygen(address: str, load: Load, *options: str, compression: str = "none") -> subprocess.Popen[str]:
    """Start telemetrygen; it ends once everything is sent, or it has given up."""
    return subprocess.Popen(
        [
            str(TELEMETRYGEN),
            *("traces", "--otlp-insecure", "--otlp-endpoint", address),
            *("--workers", str(load.workers), "--traces", str(load.traces), "--child-spans", str(load.children)),
            *("--rate", str(load.rate), *options),
        ],
        env=clean_environment() | {"OTEL_EXPORTER_OTLP_COMPRESSION": compression},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish_telemetrygen(sending: subprocess.Popen[str], timeout: float = 60) -> None:
    """Wait for its end and check that it sent everything, which its exit code does not show."""
    output, _ = sending.communicate(timeout=timeout)
    assert (sending.returncode, "traces export:" in output, "ERROR" in output) == (0, False, False), output


class Collector:
    """A Collector that exports the received spans to one address."""

    def __init__(self, folder: Path, exporter: str, **settings: Any) -> None:
        self._log = folder / "otelcol.log"
        self._output = folder / "otelcol.out"
        self.otlp, self._metrics = find_free_address(), find_free_address()
        host, port = self._metrics.split(":")
        config = {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": self.otlp}}}},
            "processors": {"batch": {"timeout": "100ms", "send_batch_size": 512, "send_batch_max_size": 512}},
            "exporters": {
                exporter: settings | {"retry_on_failure": {"initial_interval": "200ms", "max_interval": "1s"}},
                "debug": {"verbosity": "detailed", "use_internal_logger": False},
            },
            "service": {
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "processors": ["batch"], "exporters": [exporter, "debug"]}
                },
                "telemetry": {
                    "metrics": {"readers": [{"pull": {"exporter": {"prometheus": {"host": host, "port": int(port)}}}}]}
                },
            },
        }
        (folder / "otelcol.yaml").write_text(yaml.safe_dump(config))
        with self._log.open("w") as log, self._output.open("w") as output:
            self.process = subprocess.Popen(
                [str(OTELCOL), "--config", str(folder / "otelcol.yaml")],
                env=clean_environment(),
                stdout=output,
                stderr=log,
            )
        self._exporter = exporter
        wait_until(self._is_ready, "the Collector is ready")

    def read_log(self) -> str:
        return self._log.read_text()

    def count(self, metric: str) -> int:
        """Return the value of a metric of its exporter."""
        text = httpx.get(f"http://{self._metrics}/metrics", trust_env=False).text
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if re.fullmatch(rf"{metric}(__\w+__)?(_total)?", sample.name)
            and sample.labels.get("exporter") == self._exporter
        )

    def wait_for_end(self, spans: int) -> None:
        """Wait until it has sent or dropped this number of spans."""
        counts = ("otelcol_exporter_sent_spans", "otelcol_exporter_send_failed_spans")
        wait_until(lambda: sum(self.count(name) for name in counts) == spans, f"{spans} spans are sent or dropped")

    def read_ids(self) -> Ids:
        """Return the trace and span ids of all received spans."""
        return set(_IDS.findall(self._output.read_text()))

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.read_log()
        return "Everything is ready" in self.read_log()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}


CollectorStarter = Callable[..., Collector]
