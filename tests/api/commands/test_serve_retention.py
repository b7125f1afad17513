"""Retention limits of `spanproof serve`: age, size and memory."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from spanproof.api.commands.serve import read_memory_bytes, read_retention_limits
from spanproof.bench.spans import make_requests
from spanproof.collector.traces.retention import RetentionLimits
from spanproof.tests.command import DEADLINE_S, FREE, FREE_PORTS, Finished, Running, find_address


@pytest.mark.parametrize(
    ("size", "read"),
    [("500MB", 500 * 10**6), ("1.5GiB", 3 * 2**29), ("10 GB", 10**10), ("67108864B", 2**26), ("70000kB", 7 * 10**7)],
)
def test_sizes_are_parsed(size: str, read: int) -> None:
    assert read_retention_limits(None, size, "spans.duckdb") == RetentionLimits(None, read)


def test_ages_are_parsed() -> None:
    assert read_retention_limits("7d", None, ":memory:") == RetentionLimits(7 * 86_400 * 10**9, None)


@pytest.mark.parametrize(
    ("keep_for", "keep_below", "db", "message"),
    [
        ("soon", None, "spans.duckdb", "--keep-for: "),
        ("0s", None, "spans.duckdb", "--keep-for: 0s keeps nothing"),
        ("-1d", None, "spans.duckdb", "--keep-for: -1d keeps nothing"),
        (None, "10", "spans.duckdb", "--keep-below: '10' is not a size; write one such as 500MB, 10GB or 8GiB"),
        (None, "10gb", "spans.duckdb", "--keep-below: '10gb' is not a size"),
        (None, "1MB", "spans.duckdb", "--keep-below: 1MB is too small, the minimum is 64MiB"),
        (None, "1GB", ":memory:", "--keep-below needs a file"),
    ],
)
def test_invalid_retention_limits_are_rejected(
    keep_for: str | None, keep_below: str | None, db: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_retention_limits(keep_for, keep_below, db)


@pytest.mark.parametrize(
    ("memory", "message"),
    [("lots", "--memory: 'lots' is not a size"), ("1MB", "--memory: 1MB is too small, the minimum is 128MB")],
)
def test_invalid_memory_limits_are_rejected(memory: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_memory_bytes(memory)


def test_invalid_limit_exits_with_one_line(spanproof: Callable[..., Finished], tmp_path: Path) -> None:
    finished = spanproof("serve", *FREE_PORTS, "--api", FREE, "--keep-for", "0s")
    assert (finished.code, finished.out, finished.err) == (2, "", "spanproof: --keep-for: 0s keeps nothing\n")
    assert not list(tmp_path.iterdir())


def test_server_expires_traces_while_receiving(start: Callable[..., Running], tmp_path: Path) -> None:
    serving = start("serve", "--db", tmp_path / "spans.duckdb", *FREE_PORTS, "--api", FREE, "--keep-for", "300ms")
    line = serving.read_line()
    body = next(make_requests(8, templates=1))
    deadline = time.monotonic() + DEADLINE_S
    expired_count = 0.0
    with httpx.Client(trust_env=False) as client:
        while expired_count < 16 and time.monotonic() < deadline:  # so retention runs more than once
            response = client.post(
                f"http://{find_address(line, 'OTLP/HTTP')}/v1/traces",
                content=body,
                headers={"content-type": "application/x-protobuf"},
            )
            assert response.status_code == 200
            time.sleep(0.5)
            metrics = client.get(f"http://{find_address(line, 'API')}/metrics").text
            samples = [each for each in metrics.splitlines() if each.startswith("spanproof_spans_forgotten_total{")]
            expired_count = float(samples[0].split()[-1]) if samples else 0.0
    assert expired_count >= 16
